"""Samples that a result should not have known, as the summary keeps their numbers, and the words for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

UNITS = {"samples": "have the input of one in", "characters": "begin 64 that are in", "tokens": "begin 64 that are in"}
"""What is counted, and how one is found in another split: a text by its windows."""


class Shared(TypedDict, total=False):
    """The overlap of two splits.

    Of the `of` samples of the one, the other has `count` too. Where `one_in` is above 1, that is an estimate.
    """

    count: int
    of: int
    unit: str
    one_in: int


class Known(TypedDict, total=False):
    """The overlap of a split with what weights have learned from.

    Of its `of` samples, they were `trained` on so many, and further ones have `chosen` them.
    """

    trained: int
    chosen: int
    of: int
    unit: str
    one_in: int


class Origin(TypedDict, total=False):
    """The weights that a run began with.

    `known` is by "validation" and "test", where they know samples of it. `unknown` has the reasons why they may know
    more. Above 1, `one_in` says how few samples were looked for: an overlap of fewer than that may be missed.
    """

    init_from: str
    known: Mapping[str, Known]
    unknown: Sequence[str]
    one_in: int


def describe_shared(shared: Mapping[str, Shared]) -> list[str]:
    """The samples that splits share, in words.

    >>> describe_shared({"test in training": {"count": 3, "of": 1000, "unit": "samples"}})
    ['3 of 1,000 test samples have the input of one in training']
    """
    found = []
    for pair, each in shared.items():
        split, _, other = pair.partition(" in ")
        found.append(f"{_count(each, each.get('count', 0), split)} {UNITS[each.get('unit', 'samples')]} {other}")
    return found


def describe_known(origin: Origin) -> list[str]:
    """The samples of each split that the weights knew, in words.

    >>> describe_known({"known": {"test": {"trained": 12, "chosen": 3, "of": 3000, "unit": "samples"}}})
    ['12 of 3,000 test samples were trained on, 3 chose the weights']
    """
    found = []
    for split, each in origin.get("known", {}).items():
        counts = (("were trained on", each.get("trained", 0)), ("chose the weights", each.get("chosen", 0)))
        words: list[str] = []
        for word, count in counts:
            # the first says of how many
            words += [f"{_count(each, count, '' if words else split)} {word}"] if count else []
        found.append(", ".join(words))
    return found


def mark(origin: Origin) -> str:
    """A sentence on numbers that are too good, or may be; else empty."""
    reference = origin.get("init_from")
    weights = f"init_from={reference}: " if reference else ""
    if known := describe_known(origin):
        return f"{weights}these weights knew its samples: {'; '.join(known)}. Its numbers on these are too good."
    if unknown := origin.get("unknown"):
        return f"{weights}the first weights are of unknown origin ({'; '.join(unknown)}): they may know its samples."
    return ""


def _count(counted: Shared | Known, count: int, split: str) -> str:
    about = "about " if counted.get("one_in", 1) > 1 else ""
    return f"{about}{count:,}" + (f" of {counted.get('of', 0):,} {split} {counted.get('unit')}" if split else "")
