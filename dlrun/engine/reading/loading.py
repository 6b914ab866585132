"""Samples read by the workers of a `DataLoader`, which end with the run and never keep it from ending.

A worker is forked from the training, with all that the training has set: handlers of signals, open files. It gets
signals of its own (`workers.set_up`), its errors travel as values, and whatever ends the reading ends it too.
"""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Generator, Iterator
from ctypes import Array, c_longlong
from functools import partial
from multiprocessing import util
from multiprocessing.sharedctypes import RawArray
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate, get_worker_info

from dlrun.engine.reading.workers import FORK, Deaths, end, kill, next_result, set_up, start, workers_of
from dlrun.errors import DlrunError, RunError
from dlrun.randomness import SAMPLE, key, seed_libraries
from dlrun.types import Batch

Keyed = tuple[int, int]
"""A sample: the key of its epoch, and its index."""

END = "end of a pass"
"""What `load_passes` yields at the end of a pass."""


class Failure(NamedTuple):
    """A batch that could not be read."""

    message: str
    details: str


def load(
    dataset: Dataset[Any], keyed: Iterator[list[Keyed]], *, workers: int, pin_memory: bool
) -> Generator[Any, None, None]:
    """Yield the batches of `keyed`, read in this process or by `workers`.

    Close it to end the workers. Raises `RunError` for a sample that cannot be read, and for a worker that dies.
    """
    # what each worker is reading: it cannot say so itself once it has died
    reading = RawArray(c_longlong, max(1, workers))
    loader = DataLoader(
        _Keyed(dataset, reading),
        batch_sampler=_Endless(keyed),
        num_workers=workers,
        collate_fn=partial(_collate, getattr(dataset, "collate", None)),
        pin_memory=pin_memory,
        worker_init_fn=set_up,
        multiprocessing_context=FORK if workers else None,
    )

    def at(worker: int) -> str:
        # it writes the number plus one, for 0 is "none yet"
        return "" if (sample := reading[worker]) == 0 else f" while it read {_name(dataset, sample - 1)}"

    yield from _read(loader, at)


def load_passes(passes: IterableDataset[Any], *, workers: int, pin_memory: bool) -> Generator[Any, None, None]:
    """Yield what `passes` yields, and `END` at the end of each pass; then the next one begins.

    With `workers` each iterates a copy, and their results come in turn. Close it to end the workers. Raises `RunError`
    as `load` does.
    """
    loader = DataLoader(
        passes,
        batch_size=None,
        num_workers=workers,
        collate_fn=_same,
        pin_memory=pin_memory,
        worker_init_fn=set_up,
        multiprocessing_context=FORK if workers else None,
        # a worker's copy of the passes goes on with the next
        persistent_workers=workers > 0,
    )
    yield from _read(loader, lambda worker: "", again=True)


def _read(loader: DataLoader[Any], at: Callable[[int], str], *, again: bool = False) -> Generator[Any, None, None]:
    """Yield the batches of a loader, with `again` pass by pass for ever."""
    before = multiprocessing.active_children()
    iterator: Any = None
    deaths = Deaths()
    try:
        iterator = start(loader)
        deaths.hold_back()
        # should nobody close this generator: multiprocessing ends its children at exit by SIGTERM, which workers do
        # not obey, and waits for them
        util.Finalize(iterator, kill, args=[workers_of(iterator)], exitpriority=0)
        while True:
            batch = next_result(iterator, deaths, at, END)
            if isinstance(batch, Failure):
                error = RunError(batch.message)
                error.add_note(batch.details)
                raise error
            yield batch
            if batch is END and again:
                iterator = start(loader)
    finally:
        deaths.restore()
        if iterator is not None:
            end(iterator)
        else:  # a signal came while they were started
            kill([child for child in multiprocessing.active_children() if child not in before])


def _name(dataset: Dataset[Any], index: int) -> str:
    name = getattr(dataset, "name", None)
    return str(name(index)) if callable(name) else f"sample {index}"


def _same(value: Any) -> Any:
    return value


def _collate(own: Callable[[list[Any]], Batch] | None, samples: list[Any]) -> Any:
    for sample in samples:
        if isinstance(sample, Failure):
            return sample
    try:
        return default_collate(samples) if own is None else parts_of(own(samples))
    except Exception as error:
        return failure(error, "The samples of a batch do not fit together")


def parts_of(batch: Batch) -> tuple[Any, ...]:
    """A batch as a plain tuple: pinning a NamedTuple makes it anew from its fields."""
    return (batch.x, batch.y, batch.weight, batch.mask)


def failure(error: Exception, what: str) -> Failure:
    """An error as a value: torch would send its text, with the traceback in it, as the message."""
    message = str(error) if isinstance(error, DlrunError) else f"{what}: {type(error).__name__}: {error}"
    return Failure(message, "".join(traceback.format_exception(error)))


class _Endless:
    """A batch sampler over an endless iterator."""

    def __init__(self, batches: Iterator[list[Keyed]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[list[Keyed]]:
        return self._batches


class _Keyed(Dataset[Any]):
    """A data set with randomness keyed by epoch and sample."""

    def __init__(self, dataset: Dataset[Any], reading: Array[c_longlong]) -> None:
        self._dataset = dataset
        self._reading = reading

    def __getitem__(self, keyed: Keyed) -> Any:
        base, index = keyed
        worker = get_worker_info()
        self._reading[worker.id if worker else 0] = index + 1
        seed_libraries(key(base, SAMPLE, index))  # the data set may draw from any of them
        try:
            return self._dataset[index]
        except Exception as error:
            return failure(error, f"Reading {_name(self._dataset, index)} failed")
