"""Batches as a function of (data, seed, step).

An epoch is one random order of the training split, keyed by its number; a step is a slice of it. So a run that
resumes at step k starts its batches at k, without replaying any. For a text an epoch also draws the beginnings of its
windows, keyed by its number too. So are batches of equally many samples of some classes (`ClassBalance`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from math import ceil
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dlrun.engine.reading.loading import load
from dlrun.nests.batch import plain_batch
from dlrun.randomness import AUGMENTATION, CROP, ORDER, SAMPLE, generator, key
from dlrun.types import Augmentation, Batch, Samples, Split

TOGETHER = {"cpu": 1 << 17, "cuda": 1 << 26}
"""Bytes of batches to gather at once: on a CPU they should stay in its caches."""  # elsewhere (MPS) one batch
MOST = 32
"""Batches to gather at once, at most."""


@runtime_checkable
class LoaderSplit(Protocol):
    """A map-style data set, read by `DataLoader` workers."""

    dataset: Dataset[Any]


@runtime_checkable
class RandomWindows(Protocol):
    """Windows with beginnings drawn anew in each epoch."""

    @property
    def device(self) -> torch.device:
        """The device of the samples."""

    def starts(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the beginnings of the windows `index` for one epoch."""

    def at(self, starts: Tensor) -> Batch:
        """The windows beginning at `starts`, on the split's device."""


@dataclass(frozen=True)
class ClassBalance:
    """Batches of `classes` classes, drawn at random, with `each` samples of each.

    `places` [n] are the samples of every class, `each` or more. In a batch none occurs twice; a class goes through its
    samples in a random order, and again in another.
    """

    places: tuple[Tensor, ...]
    classes: int
    each: int

    def order(self, batches: int, draw: torch.Generator) -> Tensor:
        """The samples of so many batches, int64 [batches · classes · each]."""
        chosen = torch.rand(batches, len(self.places), generator=draw).argsort(1)[:, : self.classes]
        order = torch.empty(batches, self.classes, self.each, dtype=torch.int64)
        for number, places in enumerate(self.places):
            here = chosen == number
            # those of a pass that are left over are too few for a batch
            whole = len(places) // self.each
            passes = ceil(int(here.sum()) / whole)
            drawn = [places[torch.randperm(len(places), generator=draw)[: whole * self.each]] for _ in range(passes)]
            if drawn:
                order[here] = torch.cat(drawn).view(-1, self.each)[: int(here.sum())]
        return order.flatten()


def in_buckets(order: Tensor, lengths: Tensor, size: int, bucket: int, draw: torch.Generator) -> Tensor:
    """An order whose batches of `size` hold samples of like lengths.

    The samples of each `bucket` batches are sorted by length, the batches then in a random order; a last smaller one
    stays the last.
    """
    found = []
    for group in torch.split(order, size * bucket):
        # stable, so that equal lengths keep their random order
        sorted_group = group[lengths[group].argsort(stable=True)]
        batches = list(torch.split(sorted_group, size))
        full = [batch for batch in batches if len(batch) == size]
        found += [full[i] for i in torch.randperm(len(full), generator=draw).tolist()] + batches[len(full) :]
    return torch.cat(found)


@dataclass(frozen=True)
class Batches:
    """The training batches of a run.

    `size` is the number of samples in a batch; the last of an epoch may be smaller, unless `drop_last`. A batch as
    large as the split is the whole split, in its own order. With `only`, so many batches of the first epoch are
    repeated for ever, unaugmented: to see a model overfit. With `balance`, which goes with `drop_last`, an epoch is as
    many batches, but a sample may be in none or several of them.

    An augmentation that varies each sample by itself may have a method `reading(dataset)`, which returns a data set of
    varied samples: where workers read them, they vary them too. There it draws from the global generators, which are
    keyed by the sample.
    """

    split: Split
    size: int
    seed: int
    device: torch.device
    augment: Augmentation | None = None
    drop_last: bool = False
    only: int | None = None
    workers: int = 0
    balance: ClassBalance | None = None

    @property
    def per_epoch(self) -> int:
        steps = len(self.split) // self.size if self.drop_last else ceil(len(self.split) / self.size)
        return min(steps, self.only) if self.only else steps

    @property
    def last(self) -> int:
        """Samples in the last batch of an epoch."""
        n = len(self.split)
        return min(self.size, n, n - (self.per_epoch - 1) * self.size)

    def seen(self, steps: int) -> int:
        """Samples in the first `steps` batches.

        >>> from dlrun.datasets.tensors.split import TensorSplit
        >>> ten = Batches(TensorSplit(torch.arange(10), torch.arange(10)), size=4, seed=0, device=torch.device("cpu"))
        >>> [ten.seen(steps) for steps in range(7)]
        [0, 4, 8, 10, 14, 18, 20]
        """
        epochs, rest = divmod(steps, self.per_epoch)
        full = min(self.size, len(self.split))
        return epochs * ((self.per_epoch - 1) * full + self.last) + rest * full

    def start(self, step: int) -> Generator[Batch, None, None]:
        batches = self._load(step) if isinstance(self.split, LoaderSplit) else self._gather(step)
        if not self.augment or self.only or self._varies_in_workers:
            return batches
        return self._augment(batches, step)

    def indices(self, epoch: int) -> tuple[Tensor, ...]:
        """The indices of each batch of an epoch."""
        n = len(self.split)
        if self.size >= n:  # no order to draw: the mean over the whole split is the same in any
            return (torch.arange(n),)
        return torch.split(self.order(epoch), self.size)[: self.per_epoch]

    def order(self, epoch: int) -> Tensor:
        """The samples of an epoch, batch by batch."""
        # drawn on the CPU: the same for every device
        draw = generator(self.seed, ORDER, self._epoch_key(epoch))
        if self.balance:
            return self.balance.order(self.per_epoch, draw)
        order = torch.randperm(len(self.split), generator=draw)
        lengths = getattr(self.split, "lengths", None)
        return order if lengths is None else in_buckets(order, lengths, self.size, self.split.bucket, draw)  # type: ignore[attr-defined]

    def _epoch_key(self, epoch: int) -> int:
        return 0 if self.only else epoch  # the first epoch again and again

    def _positions(self, step: int) -> Iterator[tuple[int, Tensor]]:
        """Yield (epoch, indices) of each batch from `step` on."""
        while True:
            epoch, position = divmod(step, self.per_epoch)
            for index in self.indices(epoch)[position:]:
                yield epoch, index
            step = (epoch + 1) * self.per_epoch

    def _gather(self, step: int) -> Generator[Batch, None, None]:
        if self.size >= len(self.split):
            whole = self._to_device(self.split.gather(self.indices(0)[0].to(self.device)))
            while True:  # the same tensors for each step
                yield whole
        # decided once: a step of two small tensors would feel it
        at_once, here = self._at_once, self._is_here(self._sample)
        while True:
            epoch, position = divmod(step, self.per_epoch)
            # one transfer an epoch: the slices of the order are views of it
            places, take = self._places(epoch)
            left = self._mine(places)[position * self._taken :]
            for index in torch.split(left, self._taken * at_once):
                gathered = take(index) if here else self._to_device(take(index))
                if at_once == 1:
                    yield gathered
                else:
                    yield from self._cut(gathered)
            step = (epoch + 1) * self.per_epoch

    def _mine(self, places: Tensor) -> Tensor:
        """Those of an epoch's samples that this process takes, batch by batch."""
        return places[: self.per_epoch * self.size]

    @property
    def _taken(self) -> int:
        """The samples that this process takes of a full batch."""
        return self.size

    @cached_property
    def _sample(self) -> Batch:
        return self.split.gather(torch.zeros(1, dtype=torch.long, device=self.device))

    @cached_property
    def _at_once(self) -> int:
        """Batches to gather at once."""
        if hasattr(self.split, "lengths"):
            # each is padded by itself: so a resumed run has the same padding, which is a matter of rounding
            return 1
        # of small batches the call costs more than the copy
        size = sum(t.element_size() * t.numel() for t in self._sample.tensors()) * self._taken
        return max(1, min(MOST, TOGETHER.get(self.device.type, 0) // max(size, 1)))

    def _cut(self, gathered: Batch) -> Iterator[Batch]:
        if gathered.plain:
            return map(plain_batch, zip(*(torch.split(t, self._taken) for t in gathered), strict=True))
        return (gathered.rows(slice(start, start + self._taken)) for start in range(0, gathered.size, self._taken))

    def _places(self, epoch: int) -> tuple[Tensor, Callable[[Tensor], Batch]]:
        """An epoch's order, with the function to gather from it."""
        split, order = self.split, self.order(epoch)
        if not isinstance(split, RandomWindows):  # the order is of indices, that of windows of beginnings
            return order.to(self.device), split.gather
        # on the CPU too
        starts = split.starts(order, generator(self.seed, CROP, self._epoch_key(epoch)))
        return starts.to(split.device), split.at

    def _is_here(self, batch: Batch) -> bool:
        # a split too large for the device has stayed in host memory
        return all(t.device.type == self.device.type for t in batch.tensors())

    def _to_device(self, batch: Batch) -> Batch:
        if self._is_here(batch):
            return batch
        cuda = self.device.type == "cuda"  # a copy from pinned memory is not waited for
        return batch.map(lambda t: (t.pin_memory() if cuda else t).to(self.device, non_blocking=True))

    def _load(self, step: int) -> Generator[Batch, None, None]:
        # the key of a sample goes to the worker with its index: which worker reads it makes no difference
        keys = ([(key(self.seed, SAMPLE, epoch), int(i)) for i in index] for epoch, index in self._positions(step))
        cuda = self.device.type == "cuda"
        dataset = self.split.dataset  # type: ignore[attr-defined]
        if self._varies_in_workers:
            dataset = self.augment.reading(dataset)  # type: ignore[union-attr]
        with closing(load(dataset, keys, workers=self.workers, pin_memory=cuda)) as read:
            for parts in read:
                yield Batch(*parts).to(self.device, non_blocking=True)

    def _augment(self, batches: Generator[Batch, None, None], step: int) -> Generator[Batch, None, None]:
        draw = torch.Generator(self.device)
        positions = self._positions(step)
        with closing(batches):
            for batch in batches:
                epoch, index = next(positions) if self._varies_by_sample else (0, None)
                yield self.vary(batch, draw, step, epoch, index)
                step += 1

    def vary(self, batch: Batch, draw: torch.Generator, step: int, epoch: int, index: Tensor | None) -> Batch:
        """The batch of a step, its inputs varied by the augmentation; `index` are its places in the split."""
        assert self.augment is not None
        draw.manual_seed(self._draw_key(step))
        if not self._varies_by_sample:
            x = self.augment(batch.x, draw)  # type: ignore[call-arg]
        else:
            assert index is not None
            x = self.augment(batch.x, draw, Samples(index.to(self.device), epoch, self.seed))  # type: ignore[call-arg]
        return Batch(x, batch.y, batch.weight, batch.mask)

    def _draw_key(self, step: int) -> int:
        # by the step, so that a resumed run draws the same
        return key(self.seed, AUGMENTATION, step)

    @cached_property
    def _varies_in_workers(self) -> bool:
        """The augmentation varies each sample by itself: so do the workers, which read them."""
        return isinstance(self.split, LoaderSplit) and not self.only and hasattr(self.augment, "reading")

    @cached_property
    def _varies_by_sample(self) -> bool:
        return varies_by_sample(self.augment)


def varies_by_sample(augment: Augmentation | None) -> bool:
    """Does an augmentation ask for the places of samples?"""
    return augment is not None and "samples" in signature(augment).parameters
