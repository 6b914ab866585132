"""The weights of `init_from` against a run's validation and test samples, before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dlrun.datasets.tensors.overlap import NOTHING, count_shared, shared_by
from dlrun.errors import ConfigError
from dlrun.runs.weights.learned import Learned, from_library, from_weights, run_of
from dlrun.storage import run_config
from dlrun.storage.overlap import Known, Origin, Shared, describe_known
from dlrun.types import Data


def begin(plain: Mapping[str, Any], data: Data) -> tuple[Learned | None, Origin]:
    """What a run's first weights have learned from, and what of it would judge the run on `data`.

    None for weights that the seed draws. Raises `ConfigError` if they know samples of validation or test, unless
    `init_from_overlap` allows it.
    """
    reference = plain["init_from"]
    learned = from_library(plain["model"]) if not reference else from_weights(reference)
    if learned is None:
        return None, {}
    origin = _origin(reference, learned, data)
    _check(origin, plain)
    return learned, origin


def _origin(reference: str | None, learned: Learned, data: Data) -> Origin:
    """What the weights know of a data set's validation and test splits."""
    known = {split: found for split in ("validation", "test") if (found := _known(split, learned, data))}
    silent = [split for split in ("validation", "test") if getattr(data, split) and split not in data.sample_keys]
    unknown = [*learned.unknown]
    if silent:
        unknown.append(f"the data set {data.name} gives no keys of its {' and '.join(silent)} samples")
    one_in = max(each.one_in for each in (learned.trained, learned.chosen, *data.sample_keys.values(), NOTHING))
    origin: Origin = {"known": known, "unknown": unknown, "one_in": one_in}
    return {**origin, "init_from": reference} if reference else origin


def _check(origin: Origin, plain: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if the weights know samples that would judge the run, unless that is allowed."""
    found = describe_known(origin)
    if not found or plain.get("init_from_overlap") == "allow":
        return
    listed = "".join(f"\n  {each}" for each in found)
    raise ConfigError(
        f"init_from={origin['init_from']}: these weights know samples that this run would be judged by:{listed}\n"
        f"{_other_data(plain)}Leave init_from out, or begin with weights that were trained on this run's own "
        f"training split. To train nevertheless, add init_from_overlap=allow: the summary, MLflow and reports say so."
    )


def find_shared(data: Data) -> dict[str, Shared]:
    """The samples that a data set's splits share."""
    found = shared_by(data.sample_keys)
    return {
        pair: {"count": count, "of": keys.total, "unit": unit_of(data), "one_in": keys.one_in}
        for pair, (count, keys) in found.items()
    }


def unit_of(data: Data) -> Literal["samples", "characters", "tokens"]:
    """What the keys of a data set are of."""
    if data.spec.task != "language":
        return "samples"
    return "characters" if data.tokenizer else "tokens"


def _known(split: str, learned: Learned, data: Data) -> Known | None:
    keys = data.sample_keys
    own = keys.get(split, NOTHING)
    train, validation = keys.get("train", NOTHING), keys.get("validation", NOTHING)
    # what this run trains on itself is the data set's own fault, and said of it
    trained = count_shared(own, learned.trained, without=[train])
    chosen = 0
    if split == "test":  # that validation samples choose again is what they are for
        chosen = count_shared(own, learned.chosen, without=[train, validation, learned.trained])
    if not trained and not chosen:
        return None
    one_in = max(each.one_in for each in (own, learned.trained, learned.chosen, train))
    return {"trained": trained, "chosen": chosen, "of": own.total, "unit": unit_of(data), "one_in": one_in}


def _other_data(plain: Mapping[str, Any]) -> str:
    """The keys of the data that the weights were trained with, where they differ."""
    folder = run_of(plain["init_from"])
    theirs = run_config.plain(folder).get("dataset") if folder else None
    ours = plain["dataset"]
    if not isinstance(theirs, dict) or theirs.get("_target_") != ours["_target_"]:
        return ""
    keys = [key for key in ours if theirs.get(key) != ours[key]]
    told = [f"dataset.{key}={theirs.get(key)} (here {ours[key]})" for key in keys]
    return f"They were trained with {', '.join(told)}. " if told else ""
