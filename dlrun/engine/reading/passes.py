"""The passes over a stream, as one process of a `DataLoader` reads them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from torch.utils.data import IterableDataset, get_worker_info
from torch.utils.data._utils import worker as torch_worker

from dlrun.datasets.samples.source import Stream, prepare
from dlrun.engine.reading.loading import failure, parts_of
from dlrun.randomness import STREAM, key, seed_libraries
from dlrun.types import Batch


@dataclass(frozen=True)
class Position:
    """A place in a stream: so many batches of this pass have been taken, so many samples in all.

    `state` is the stream's own, if it says its place.
    """

    number: int = 0
    batches: int = 0
    samples: int = 0
    state: Any = None


class Read(NamedTuple):
    """A batch as a plain tuple, None for one that was skipped; with the stream's state after it."""

    parts: tuple[Any, ...] | None
    state: Any = None


class Passes(IterableDataset[Any]):
    """Batches of a stream from a position on: each iteration is a pass.

    A worker of several makes every so many-th batch, or all batches of its own samples if the stream is sharded. The
    global generators are seeded for each batch, by the seed, the pass and the batch: so a pass is the same again, and
    the same for any number of workers. With `says_place` the stream's state goes with each batch.
    """

    def __init__(
        self, stream: Stream, size: int, seed: int, *, drop_last: bool, says_place: bool, start: Position
    ) -> None:
        self._stream, self._size, self._seed, self._drop_last = stream, size, seed, drop_last
        self._says_place, self._next = says_place, start
        self._place: tuple[int, int] | None = None

    def __iter__(self) -> Iterator[Any]:
        if self._place is None:
            info = get_worker_info()
            # with several processes that train, their workers would be numbered through
            self._place = (info.id, info.num_workers) if info else (0, 1)
            if info and not self._stream.sharded:
                # each worker reads all of it: one that shares itself out by torch's example would be halved twice
                torch_worker._worker_info = None
        start, self._next = self._next, Position(self._next.number + 1)
        try:
            yield from self._pass(start, *self._place)
        except Exception as error:
            yield failure(error, f"Reading {self._stream.name}, in pass {start.number}, failed")

    def _pass(self, start: Position, worker: int, workers: int) -> Iterator[Read]:
        stream, size = self._stream, self._size
        base = key(self._seed, STREAM, start.number)
        share = worker if stream.sharded else 0
        first, skipped = (0, start.batches) if start.state is None else (start.batches, 0)
        number = first
        seed_libraries(key(base, 0, number))
        source = prepare(stream.source, start.number, start.state)
        samples = iter(source)
        while True:
            # what the stream draws is a function of the batch, whoever has read those before. At the beginning it is
            # the same for all workers, which may shuffle a list of shards before they share it out
            seed_libraries(key(base, share if number else 0, number))
            rows = list(islice(samples, size))
            if not rows or (self._drop_last and len(rows) < size):
                return
            if stream.sharded or (number - first) % workers == worker:
                # of a shared stream this is the place if no worker has come to its end, else it is an earlier one
                place = number * workers + worker if stream.sharded else number
                # the results of workers come in turn, so those of skipped batches too
                parts = None if place < skipped else self._make(rows, start.number, number)
                # at the end of a pass a stream's state may be that of the next
                says = self._says_place and len(rows) == size
                yield Read(parts, copy.deepcopy(source.state_dict()) if says else None)
            number += 1

    def _make(self, rows: list[Any], number_of_pass: int, number: int) -> tuple[Any, ...]:
        first = number * self._size
        samples = [self._stream.convert(row, first + i, number_of_pass) for i, row in enumerate(rows)]
        batch: Batch = self._stream.rows.collate(samples)
        return parts_of(batch)
