"""Patterns of names of weights: a name of one or of a module, with `*` for any text and `?` for a character."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import TypeVar

from torch import Tensor, nn

from dlrun.errors import ConfigError, did_you_mean

V = TypeVar("V")

MOST = 40
"""Names that a message lists."""


def matches(pattern: str, name: str) -> bool:
    """Does a pattern fit a name, or a module that the name is in?

    >>> [matches(pattern, "blocks.0.out.bias") for pattern in ("blocks", "*.bias", "blocks.?.out", "out")]
    [True, True, True, False]
    """
    return any(fnmatchcase(part, pattern) for part in accumulate(name.split("."), "{}.{}".format))


def any_matches(patterns: Collection[str], names: Collection[str]) -> bool:
    """Does one of the patterns fit one of the names?"""
    return any(matches(pattern, name) for pattern in patterns for name in names)


def check_found(patterns: Collection[str], names: Collection[str], *, where: str) -> None:
    """Raise `ConfigError` for a pattern that fits none of `names`, which it lists."""
    for pattern in patterns:
        if not any(matches(pattern, name) for name in names):
            raise ConfigError(
                f"{where}: no name fits `{pattern}`.{_suggest(pattern, names)} The names are:\n{list_names(names)}"
            )


def _suggest(pattern: str, names: Collection[str]) -> str:
    modules = dict.fromkeys(name.rpartition(".")[0] for name in names)
    if hint := did_you_mean(pattern, [*names, *filter(None, modules)]):
        return hint
    # `*.bais`: each part for itself
    known = {part for name in names for part in name.split(".")}
    parts = pattern.split(".")
    for place, part in enumerate(parts):
        if part not in known and not {*"*?"} & {*part} and (hint := did_you_mean(part, known)):
            before, after = ("".join(f"{p}." for p in parts[:place]), "".join(f".{p}" for p in parts[place + 1 :]))
            return re.sub("`(.+?)`", rf"`{before}\1{after}`", hint)
    return ""


def list_names(names: Collection[str]) -> str:
    """The names, a line each; of many the first."""
    lines = [f"  {name}" for name in names]
    return "\n".join(
        lines[:MOST] + [f"  … and {len(lines) - MOST} more; `dlrun check --parameters` lists all"] * (len(lines) > MOST)
    )


def value_for(names: Collection[str], values: Mapping[str, V], *, where: str) -> V | None:
    """The value of the closest pattern that fits one of a weight's names; None if none does.

    The closest one has the most characters beside `*` and `?`. So their order means nothing. Raises `ConfigError` if
    two are as close and their values differ.

    >>> value_for(["conv1.bias"], {"*": 0.1, "conv1": 0.5}, where="finetune.lr")
    0.5
    """
    fitting = {pattern: value for pattern, value in values.items() if any_matches([pattern], names)}
    if not fitting:
        return None
    most = max(map(_closeness, fitting))
    closest = {pattern: value for pattern, value in fitting.items() if _closeness(pattern) == most}
    first, *others = closest.values()
    if any(other != first for other in others):
        raise ConfigError(
            f"{where}: {' and '.join(f'`{pattern}: {value}`' for pattern, value in closest.items())} both fit "
            f"{next(iter(names))}. Give one of them in more letters."
        )
    return first


def _closeness(pattern: str) -> int:
    return len(pattern.replace("*", "").replace("?", ""))


def names_of(model: nn.Module) -> list[tuple[nn.Parameter, list[str]]]:
    """Each parameter with its names; tied weights have several."""
    found: dict[nn.Parameter, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        found.setdefault(p, []).append(name)
    return [*found.items()]


def tied(model: nn.Module) -> list[Sequence[str]]:
    """The names of each tensor of a model's state that has several."""
    found: dict[int, list[str]] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor):
            found.setdefault(id(value), []).append(name)
    return [names for names in found.values() if len(names) > 1]
