"""Samples that are in several splits, found by their keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dlrun.datasets.tensors.sample_keys import MOST, thinned
from dlrun.types import SampleKeys

NOTHING = SampleKeys(torch.zeros(0, dtype=torch.int64), 0)


def union(*sets: SampleKeys, most: int = MOST) -> SampleKeys:
    """The keys of all samples, each once, in ascending order.

    >>> one, other = (SampleKeys(torch.tensor(values), 2) for values in ([4, 2], [2, 9]))
    >>> union(one, other).values.tolist()
    [2, 4, 9]
    """
    one_in = max((keys.one_in for keys in sets), default=1)
    together = _union(sets, one_in)
    while len(together.values) > most:
        one_in *= 2
        together = _union([together], one_in)
    return together


def count_shared(own: SampleKeys, other: SampleKeys, *, without: Sequence[SampleKeys] = ()) -> int:
    """The number of samples of `own` that are in `other`, and in none of `without`.

    It is an estimate where keys are thinned.

    >>> own, other = (SampleKeys(torch.tensor(values), len(values)) for values in ([1, 2, 2, 3], [2, 3]))
    >>> count_shared(own, other), count_shared(own, other, without=[SampleKeys(torch.tensor([3]), 1)])
    (3, 2)
    """
    one_in = max(keys.one_in for keys in (own, other, *without))
    values = thinned(own, one_in).values
    if not len(values):
        return 0
    found = _is_in(values, other, one_in)
    for keys in without:
        found &= ~_is_in(values, keys, one_in)
    return min(own.total, int(found.sum()) * one_in)


def shared_by(splits: Mapping[str, SampleKeys]) -> dict[str, tuple[int, SampleKeys]]:
    """The number of samples that a split shares with another, and the split's keys; by "test in training" and so on."""
    names = {"training": "train", "validation": "validation", "test": "test"}
    found = {}
    for split, others in (("validation", ["training"]), ("test", ["training", "validation"])):
        for other in others:
            if split in splits and names[other] in splits:
                one, two = splits[split], splits[names[other]]
                if count := count_shared(one, two):
                    found[f"{split} in {other}"] = count, thinned(one, two.one_in)
    return found


def _union(sets: Sequence[SampleKeys], one_in: int) -> SampleKeys:
    values = [thinned(keys, one_in).values for keys in sets]
    together: Tensor = torch.unique(torch.cat(values)) if values else NOTHING.values
    return SampleKeys(together, len(together) * one_in, one_in)


def _is_in(values: Tensor, keys: SampleKeys, one_in: int) -> Tensor:
    known = thinned(keys, one_in).values.sort().values
    if not len(known):
        return torch.zeros(len(values), dtype=torch.bool)
    return known[torch.searchsorted(known, values).clamp(max=len(known) - 1)] == values
