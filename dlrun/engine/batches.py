"""Batches as a function of (data, seed, step): which samples a step sees depends on nothing else.

An epoch is one random order of the training split, keyed by its number; a step is a slice of it. So
a run that resumes at step k starts its batches at k, without replaying any. Of a text an epoch also draws
how far each of its windows is moved on, keyed by its number too.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from dlrun.randomness import AUGMENTATION, CROP, ORDER, SAMPLE, generator, key, seed_libraries
from dlrun.types import Augmentation, Batch, Split

TOGETHER = {"cpu": 1 << 17, "cuda": 1 << 26}
"""Bytes of batches that are gathered at once: on a CPU they should stay in its caches."""
MOST = 32
"""Batches that are gathered at once."""


@runtime_checkable
class LoaderSplit(Protocol):
    """A split that lies in a map-style data set and is read by workers."""

    dataset: Dataset[Any]


@runtime_checkable
class RandomWindows(Protocol):
    """A split whose samples are drawn anew in each epoch, such as the windows of a text."""

    @property
    def device(self) -> torch.device:
        """Return where it lies."""

    def starts(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Return the places that stand for the samples at `index` in this epoch."""

    def at(self, starts: Tensor) -> Batch:
        """Return the samples at places that `starts` returned, on the split's device."""


@dataclass(frozen=True)
class Batches:
    """The training batches of a run.

    `size` is the number of samples in a batch (the last of an epoch may be smaller, unless
    `drop_last`); a batch as large as the split is the whole split, in its own order. With `only` the
    first batches of the first epoch are repeated for ever, unaugmented: to see a model overfit.
    """

    split: Split
    size: int
    seed: int
    device: torch.device
    augment: Augmentation | None = None
    drop_last: bool = False
    only: int | None = None
    workers: int = 0

    @property
    def per_epoch(self) -> int:
        """Return the number of steps in an epoch."""
        steps = len(self.split) // self.size if self.drop_last else ceil(len(self.split) / self.size)
        return min(steps, self.only) if self.only else steps

    def start(self, step: int) -> Iterator[Batch]:
        """Yield the batches of `step`, `step + 1`, … without end."""
        batches = self._streamed(step) if isinstance(self.split, LoaderSplit) else self._gathered(step)
        if not self.augment or self.only:
            return batches
        return self._augmented(batches, step)

    def indices(self, epoch: int) -> tuple[Tensor, ...]:
        """Return the samples of each batch of an epoch."""
        n = len(self.split)
        if self.size >= n:
            return (torch.arange(n),)
        return torch.split(self._order(epoch), self.size)[: self.per_epoch]

    def _order(self, epoch: int) -> Tensor:
        return torch.randperm(len(self.split), generator=generator(self.seed, ORDER, self._same(epoch)))

    def _same(self, epoch: int) -> int:
        return 0 if self.only else epoch

    def _positions(self, step: int) -> Iterator[tuple[int, Tensor]]:
        """Yield (epoch, indices) from `step` on, the indices of an epoch moved to the device at once."""
        while True:
            epoch, position = divmod(step, self.per_epoch)
            for index in self.indices(epoch)[position:]:
                yield epoch, index
            step = (epoch + 1) * self.per_epoch

    def _gathered(self, step: int) -> Iterator[Batch]:
        if self.size >= len(self.split):
            whole = self._here(self.split.gather(self.indices(0)[0].to(self.device)))
            while True:
                yield whole
        while True:
            epoch, position = divmod(step, self.per_epoch)
            # one transfer an epoch: the slices of the order are views of it
            places, take = self._places(epoch)
            for index in torch.split(places[position * self.size :][: self._seen(position)], self.size * self._at_once):
                yield from self._apart(self._here(take(index)))
            step = (epoch + 1) * self.per_epoch

    def _seen(self, position: int) -> int:
        """Return how many samples an epoch has after its first `position` steps, those that it drops left out."""
        return (self.per_epoch - position) * self.size

    @cached_property
    def _at_once(self) -> int:
        """Return how many batches one gathering takes: of small ones the call is what costs."""
        sample = self.split.gather(torch.zeros(1, dtype=torch.long, device=self.device))
        size = sum(t.element_size() * t.numel() for t in sample) * self.size
        return max(1, min(MOST, TOGETHER.get(self.device.type, 0) // max(size, 1)))

    def _apart(self, gathered: Batch) -> Iterator[Batch]:
        if self._at_once == 1:
            yield gathered
        else:
            yield from map(Batch, *(torch.split(t, self.size) for t in gathered))

    def _places(self, epoch: int) -> tuple[Tensor, Callable[[Tensor], Batch]]:
        """Return what stands for an epoch's samples, in its order, and what makes a batch of a slice of it."""
        split, order = self.split, self._order(epoch)
        if not isinstance(split, RandomWindows):
            return order.to(self.device), split.gather
        # drawn on the CPU, so that every device sees the same
        starts = split.starts(order, generator(self.seed, CROP, self._same(epoch)))
        return starts.to(split.device), split.at

    def _here(self, batch: Batch) -> Batch:
        """Return a batch on the device, where its split was too large for it."""
        if batch.x.device.type == self.device.type:
            return batch
        cuda = self.device.type == "cuda"
        return Batch(*((t.pin_memory() if cuda else t).to(self.device, non_blocking=True) for t in batch))

    def _streamed(self, step: int) -> Iterator[Batch]:
        keys = ([(key(self.seed, SAMPLE, epoch), int(i)) for i in index] for epoch, index in self._positions(step))
        loader = DataLoader(
            _Keyed(self.split.dataset),  # type: ignore[attr-defined]
            batch_sampler=_Endless(keys),
            num_workers=self.workers,
            collate_fn=default_collate,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_leave_signals,
        )
        for x, y in loader:
            yield Batch(x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True))

    def _augmented(self, batches: Iterator[Batch], step: int) -> Iterator[Batch]:
        assert self.augment is not None
        draw = torch.Generator(self.device)
        for batch in batches:
            draw.manual_seed(key(self.seed, AUGMENTATION, step))
            yield Batch(self.augment(batch.x, draw), batch.y)
            step += 1


def _leave_signals(worker: int) -> None:
    # what a terminal or a scheduler sends to all processes of a run is the run's to obey: it ends its workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class _Endless:
    """A batch sampler over an iterator: the loader asks for what it prefetches, and no more."""

    def __init__(self, batches: Iterator[list[tuple[int, int]]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self._batches


class _Keyed(Dataset[Any]):
    """A data set whose own randomness (of torch, Python, numpy) is a function of the epoch and the sample."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._dataset = dataset

    def __getitem__(self, keyed: tuple[int, int]) -> Any:
        base, index = keyed
        seed_libraries(key(base, SAMPLE, index))
        return self._dataset[index]
