"""The identity of a run: the hash of everything that determines its result.

Two runs of one identity would be equal, so a sweep need not repeat a job that another has finished. The parts of
the hash are kept with it (`Job.parts`, `Summary.identity_parts`), to name what differs between two runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlrun.storage import sources as code

BOOKKEEPING = (
    *("name", "cost", "tracking", "trusted", "study", "sweep", "init_from_overlap", "pretrain", "started"),
    "resume",
)
"""Groups and keys of the configuration that no result depends on."""
BOOKKEEPING_OF_TRAINER = (
    "checkpoint_every",
    "activation_checkpointing",
    "figures",
    "profile",
    "device",
    "devices",
    "strategy",
    "precision",
    "threads",
    "workers",
)
"""Likewise; the device's type and the precision are parts of their own, as `auto` was resolved."""

UNSET = ("finetune", "init_from_skip", "observers")
"""Keys that count only where they say something."""

PART_NAMES = {
    "config": "the configuration",
    "data": "the data",
    "sources": "dlrun's sources",
    "modules": "your modules",
    "device": "the device",
    "precision": "the precision",
    "torch": "torch",
}
"""The parts of an identity, in the words of a message."""


@dataclass(frozen=True)
class Identity:
    """The hash, 64 hexadecimal digits, and its parts.

    Older runs have the hash alone.
    """

    hash: str
    parts: Mapping[str, str] = field(default_factory=dict)


def identify(
    config: Mapping[str, Any], fingerprint: str, *, device: str, precision: str, torch: str, of_batches: bool = False
) -> Identity:
    """The identity of a checked configuration's run.

    `fingerprint` is that of its data. With `of_batches`, values compare the samples of a batch: the batch size of an
    evaluation counts.
    """
    parts = {
        "config": digest(essential(code.without_watching(config), of_batches=of_batches)),
        "data": fingerprint,
        "sources": code.sources(),
        # parts of the user's own, under the current directory
        "modules": code.user_modules(config),
        "device": device,
        "precision": precision,
        "torch": torch,
    }
    return Identity(digest(parts), parts)


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The different parts of two identities, in words.

    Parts that one of them lacks are left out.

    >>> differing({"torch": "2.8", "data": "ab"}, {"torch": "2.9", "data": "ab"})
    ['torch (2.8, 2.9)']
    """
    both = [key for key in PART_NAMES if key in one and key in other and one[key] != other[key]]
    # a hash says nothing to a person
    told = {key: f" ({one[key]}, {other[key]})" for key in both if key in ("device", "precision", "torch")}
    return [PART_NAMES[key] + told.get(key, "") for key in both]


def differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The different keys of two configurations, with both values.

    The seed is left out.

    >>> differing_keys({"optimizer": {"lr": 0.1}, "name": "a"}, {"optimizer": {"lr": 0.2}, "name": "b"})
    ['optimizer.lr: 0.1, 0.2']
    >>> differing_keys({"trainer": {"epochs": 40}}, {"trainer": {"epochs": 10.0, "ema": 0.9}})
    ['trainer.epochs: 40, 10', 'trainer.ema: not set, 0.9']
    """
    left, right = (dict(flatten(essential(config))) for config in (one, other))
    keys = [key for key in dict.fromkeys([*left, *right]) if key != "seed" and left.get(key) != right.get(key)]
    return [f"{key}: {format_entry(left, key)}, {format_entry(right, key)}" for key in keys]


def format_entry(config: Mapping[str, Any], key: str) -> str:
    """A key's value as one would type it; "not set" without one.

    >>> [format_entry({"a": None, "b": True, "c": 10.0, "d": "x"}, key) for key in "abcde"]
    ['null', 'true', '10', 'x', 'not set']
    """
    if key not in config:
        return "not set"
    value = config[key]
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    # one side may have been given 40, the other 10.0
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() and abs(value) < 1e6 else str(value)


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings by dotted keys.

    An empty mapping is a leaf.
    """
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


OF_BATCHES = ("dlrun.losses.triplet.triplet",)
"""dlrun's own parts whose values are of batches."""
EXACT = ("dlrun.", "torch.nn.", "torchmetrics.", "sklearn.metrics.")
"""The beginnings of names of losses and metrics, none of whose values is of a batch."""

NEW = {
    "views": None,
    "classes_per_batch": None,
    "held_out_classes": None,
    "stratify": False,
    "folds": None,
    "fold": None,
    "class_weights": None,
    "log_gradients": False,
    "log_parameters": False,
    "micro_batch": "auto",
    "on_spike": None,
}
"""Keys that older runs lack, with the value that means what these did. Logged gradients and parameters count as a
result: a run without them is no substitute."""
MEASURED = ("profile", "memory")
"""The key and value of a run that measures more than others: these do not stand for it."""


def essential(config: Mapping[str, Any], *, of_batches: bool = False) -> dict[str, Any]:
    """The keys of a configuration with an effect on the result.

    With `of_batches`, the batch size of an evaluation has one. Observers are all kept: only their classes say which
    have none (`sources.without_watching`).
    """
    kept = {key: value for key, value in config.items() if key not in BOOKKEEPING}
    if isinstance(observers := kept.get("observers"), Mapping):
        kept["observers"] = {name: part for name, part in observers.items() if not code.is_known_to_look(part)}
    of_evaluation = () if of_batches else ("batch_size",)
    # no groups of weights: as runs that lack the key
    grouped = isinstance(kept.get("optimizer"), Mapping) and kept["optimizer"].get("groups") is not None
    for group, dropped in (
        ("trainer", BOOKKEEPING_OF_TRAINER),
        ("evaluation", of_evaluation),
        ("dataset", ()),
        ("loss", ()),
        ("optimizer", () if grouped else ("groups",)),
    ):
        if isinstance(kept.get(group), Mapping):
            values = {k: v for k, v in kept[group].items() if k not in dropped or (k, v) == MEASURED}
            kept[group] = {k: v for k, v in values.items() if not (k in NEW and (v is NEW[k] or v == NEW[k] != 0))}
    # of runs of before 0.2, and of others that leave it out, the identities are equal
    kept = {key: value for key, value in kept.items() if not (key in UNSET and _unset(value))}
    # a path counts as it was given; weights to start from count by their content
    for key, given in ((config.get("started") or {}).get("paths") or {}).items():
        if key != "init_from":
            kept = _with(kept, key.split("."), given)
    return _without_unset_size(kept)


def may_be_of_batches(config: Mapping[str, Any]) -> bool:
    """May values compare the samples of a batch, as those of parts of the user's own may?

    It is decided before the parts are made. Of dlrun's own the triplet loss has such values.

    >>> may_be_of_batches({"loss": {"_target_": "dlrun.losses.mse.mse"}}), may_be_of_batches({"loss": "${mine}"})
    (False, True)
    """
    metrics = config.get("metrics") or {}
    others = [config.get("loss"), *(metrics.values() if isinstance(metrics, Mapping) else [metrics])]
    model = config.get("model")
    own = [
        _is_within(model.get("_target_") if isinstance(model, Mapping) else model, ("dlrun.",)),
        # the terms of a sum of losses too
        *(_is_within(each, EXACT) for part in others for each in _targets(part)),
    ]
    return not all(own)


def _targets(part: Any) -> list[Any]:
    return [*code.targets(part)] if isinstance(part, Mapping) else [part]


def _is_within(target: Any, packages: tuple[str, ...]) -> bool:
    return target is None or (str(target).startswith(packages) and target not in OF_BATCHES)


def _unset(value: Any) -> bool:
    return all(map(_unset, value.values())) if isinstance(value, Mapping) else value in (None, [])


def _without_unset_size(config: dict[str, Any]) -> dict[str, Any]:
    # older runs lack `per_class`; null means what these did
    data = config.get("dataset")
    if not isinstance(data, Mapping) or data.get("per_class", 0) is not None:
        return config
    return config | {"dataset": {key: value for key, value in data.items() if key != "per_class"}}


def _with(values: Any, key: Sequence[str], value: Any) -> Any:
    if not key:
        return value
    return {**values, key[0]: _with(values[key[0]], key[1:], value)} if key[0] in values else values


def digest(content: Any) -> str:
    """The hash of plain values, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(sortable(content), sort_keys=True, default=str).encode()).hexdigest()


def sortable(content: Any) -> Any:
    """Plain values whose keys can be sorted: where some are numbers and some are text, all are text.

    Keys of one type stay: numbers are sorted as such.

    >>> sortable({"groups": {2: 1, "0.bias": 3}, "other": {2: 1}})
    {'groups': {'2': 1, '0.bias': 3}, 'other': {2: 1}}
    """
    if isinstance(content, Mapping):
        mixed = len({type(key) for key in content}) > 1
        return {str(key) if mixed else key: sortable(value) for key, value in content.items()}
    return [*map(sortable, content)] if isinstance(content, list | tuple) else content
