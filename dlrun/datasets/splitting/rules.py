"""Rules that split samples: how many of which go to the test, the validation, and each fold."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dlrun.errors import ConfigError
from dlrun.terminal.format import counted

Parts = tuple[Tensor, Tensor]
"""The indices that are taken, and the rest."""


class SplitRule(Protocol):
    """Splits indices of samples; `rest` is in an order that the split's seed has drawn."""

    def take(self, rest: Tensor, count: int) -> Parts:
        """Take about `count` of the rest."""

    def fold(self, rest: Tensor, folds: int, fold: int) -> Parts:
        """Take the part `fold` of so many."""

    def first(self, rest: Tensor, count: int) -> Tensor:
        """The first `count` to train on: a larger number adds samples."""


@dataclass(frozen=True)
class AtRandom:
    """Samples as they were drawn."""

    def take(self, rest: Tensor, count: int) -> Parts:
        """The first."""
        return rest[:count], rest[count:]

    def fold(self, rest: Tensor, folds: int, fold: int) -> Parts:
        """Every so many-th."""
        return _nth(rest, folds, fold)

    def first(self, rest: Tensor, count: int) -> Tensor:
        """The first."""
        return rest[:count]


@dataclass(frozen=True)
class Stratified:
    """Each class has the same share of every part, to one sample; `y` [N] are the classes."""

    y: Tensor

    def take(self, rest: Tensor, count: int) -> Parts:
        """So many of each class."""
        y = self.y[rest]
        taken = place_in_class(y) < _shares(torch.bincount(y), count)[y]
        return rest[taken], rest[~taken]

    def fold(self, rest: Tensor, folds: int, fold: int) -> Parts:
        """Every so many-th of each class."""
        return _nth(rest[self.y[rest].argsort(stable=True)], folds, fold)

    def first(self, rest: Tensor, count: int) -> Tensor:
        """So many of each class."""
        return self.take(rest, count)[0]


@dataclass(frozen=True)
class Grouped:
    """No group is in two parts; `groups` [N] are numbers from 0 on, `order` is the groups' own, drawn by the seed."""

    groups: Tensor
    order: Tensor

    def take(self, rest: Tensor, count: int) -> Parts:
        """Whole groups, about so many samples of them."""
        rest = rest[self.order[self.groups[rest]].argsort(stable=True)]
        if not count:
            return rest[:0], rest
        sizes = torch.unique_consecutive(self.groups[rest], return_counts=True)[1]
        if len(sizes) < 2:
            raise ConfigError(_too_few_groups(len(self.order)))
        # whole groups, as near to the count as they come; at least one, and one is left
        ends = sizes.cumsum(0)[:-1]
        end = int(ends[(ends - count).abs().argmin()])
        return rest[:end], rest[end:]

    def fold(self, rest: Tensor, folds: int, fold: int) -> Parts:
        """Whole groups, in parts of about one size."""
        sizes = torch.bincount(self.groups[rest], minlength=len(self.order))
        present = sorted(sizes.nonzero().flatten().tolist(), key=lambda group: (-int(sizes[group]), self.order[group]))
        if len(present) < folds:
            raise ConfigError(f"dataset.folds={folds}: there are {counted(len(present), 'group')}, one a fold at most.")
        # the largest first, each into the smallest fold, as scikit-learn's GroupKFold
        heap = [(0, number) for number in range(folds)]
        of_group = torch.zeros(len(sizes), dtype=torch.int64)
        for group in present:
            size, number = heapq.heappop(heap)
            of_group[group] = number
            heapq.heappush(heap, (size + int(sizes[group]), number))
        held = of_group[self.groups[rest]] == fold
        return rest[held], rest[~held]

    def first(self, rest: Tensor, count: int) -> Tensor:
        """The first, whatever their group."""
        return rest[:count]


@dataclass(frozen=True)
class InTime:
    """What is taken is later than all of the rest; `time` [N] are numbers.

    Samples of one time are in one part.
    """

    time: Tensor

    def take(self, rest: Tensor, count: int) -> Parts:
        """The latest."""
        rest = self._latest_first(rest)
        end = self._between(rest, count)
        return rest[:end], rest[end:]

    def fold(self, rest: Tensor, folds: int, fold: int) -> Parts:
        """The part `fold`, and all before it; before the part 0 lies one that only trains (TimeSeriesSplit)."""
        ascending = self._latest_first(rest).flip(0)
        n, size = len(ascending), len(ascending) // (folds + 1)
        times = self.time[ascending]
        ends = [n - (folds - fold) * size, n - (folds - fold - 1) * size]
        begin, end = (int(torch.searchsorted(times, times[at])) if at < n else n for at in ends)
        if not 0 < begin < end:
            raise ConfigError(
                f"dataset.folds={folds} dataset.fold={fold}: too few different times for so many parts. Give fewer."
            )
        return ascending[begin:end], ascending[:begin].flip(0)

    def first(self, rest: Tensor, count: int) -> Tensor:
        """The latest."""
        return self._latest_first(rest)[:count]

    def _latest_first(self, rest: Tensor) -> Tensor:
        return rest[self.time[rest].argsort(descending=True, stable=True)]

    def _between(self, rest: Tensor, count: int) -> int:
        """The place nearest to `count` where the time changes."""
        if not count:
            return 0
        times = self.time[rest]
        changes = (times[1:] != times[:-1]).nonzero().flatten() + 1
        if not len(changes):
            raise ConfigError("dataset.time: all rows that are to be split have one time.")
        return int(changes[(changes - count).abs().argmin()])


def _nth(rest: Tensor, folds: int, fold: int) -> Parts:
    held = torch.arange(len(rest)) % folds == fold
    return rest[held], rest[~held]


def place_in_class(y: Tensor) -> Tensor:
    """The place of each sample among those of its class."""
    order = y.argsort(stable=True)
    sizes = torch.bincount(y)
    starts = sizes.cumsum(0) - sizes
    places = torch.empty_like(order)
    places[order] = torch.arange(len(y)) - starts[y[order]]
    return places


def _shares(sizes: Tensor, count: int) -> Tensor:
    """`count` shared out by the classes' sizes: rounded down, then the largest remainders."""
    exact = sizes.double() * count / max(1, int(sizes.sum()))
    shares = exact.floor().long()
    left = count - int(shares.sum())
    shares[(shares - exact).argsort(stable=True)[:left]] += 1
    return shares


def _too_few_groups(count: int) -> str:
    return (
        f"dataset.group: {counted(count, 'group')} are too few, for no group is in two splits. Give a split the size "
        "0, or split by rows (dataset.group=null)."
    )
