"""Samples read by the workers of a `DataLoader`, which end with the run and never keep it from ending.

A worker is forked from the training, with all that the training has set: handlers of signals, open files. It gets
signals of its own (`_set_up`), its errors travel as values, and whatever ends the reading ends it too.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from ctypes import Array, c_longlong
from functools import partial
from multiprocessing import util
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from dlrun.errors import DlrunError, RunError
from dlrun.randomness import SAMPLE, key, seed_libraries
from dlrun.types import Batch

Keyed = tuple[int, int]
"""A sample: the key of its epoch, and its index."""

PATIENCE = 3.0
"""Seconds that workers have to finish the sample that they are reading; then they are killed."""

FORK = "fork" if sys.platform == "linux" else None
"""How workers are made. A server of forks would be their parent, and not know when the run has died."""

PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux."""


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
    before = multiprocessing.active_children()
    # what each worker is reading: it cannot say so itself once it has died
    reading = RawArray(c_longlong, max(1, workers))
    loader = DataLoader(
        _Keyed(dataset, reading),
        batch_sampler=_Endless(keyed),
        num_workers=workers,
        collate_fn=partial(_collate, getattr(dataset, "collate", None)),
        pin_memory=pin_memory,
        worker_init_fn=_set_up,
        multiprocessing_context=FORK if workers else None,
    )
    iterator: Any = None
    deaths = _Deaths()
    try:
        iterator = _start(loader)
        deaths.hold_back()
        # should nobody close this generator: multiprocessing ends its children at exit by SIGTERM, which workers do
        # not obey, and waits for them
        util.Finalize(iterator, _kill, args=[_workers(iterator)], exitpriority=0)
        while True:
            batch = _next(iterator, deaths, dataset, reading)
            if isinstance(batch, Failure):
                error = RunError(batch.message)
                error.add_note(batch.details)
                raise error
            yield batch
    finally:
        deaths.restore()
        if iterator is not None:
            _end(iterator)
        else:  # a signal came while they were started
            _kill([child for child in multiprocessing.active_children() if child not in before])


class _Deaths:
    """Lets torch's handler of SIGCHLD raise only while a batch is waited for.

    It raises when a worker has died, else wherever the training is, in the writing of a checkpoint too.
    """

    def __init__(self) -> None:
        self._unseen = False
        self._waits = False
        self._raise: Any = None

    def hold_back(self) -> None:
        # only the main thread may have handlers
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGCHLD)
            if callable(handler):
                self._raise = handler
                signal.signal(signal.SIGCHLD, self._on_death)

    def restore(self) -> None:
        if self._raise is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, self._raise)

    def next(self, iterator: Iterator[Any]) -> Any:
        """The next batch; raises if a worker has died."""
        self._waits = True
        try:
            if self._unseen and any(worker.exitcode for worker in _workers(iterator)):
                raise RuntimeError("a worker has died meanwhile")
            self._unseen = False
            return next(iterator)
        finally:
            self._waits = False

    def _on_death(self, number: int, frame: object) -> None:
        if self._waits:
            self._raise(number, frame)
        self._unseen = True


def _start(loader: DataLoader[Any]) -> Iterator[Any]:
    try:
        return iter(loader)
    except RuntimeError as error:  # the first worker may die before the last is there
        raise RunError(f"The workers that read the data set could not be started: {error}") from error


def _next(iterator: Iterator[Any], deaths: _Deaths, dataset: Dataset[Any], reading: Array[c_longlong]) -> Any:
    try:
        return deaths.next(iterator)
    except Exception as error:
        # torch notices the death, or meets a broken pipe first
        for number, worker in enumerate(_workers(iterator)):
            worker.join(0.2)
            if worker.exitcode:
                raise RunError(_describe_death(worker.exitcode, dataset, reading[number])) from error
        raise


def _describe_death(code: int, dataset: Dataset[Any], sample: int) -> str:
    # it writes the number plus one, for 0 is "none yet"
    name = "" if sample == 0 else f" while it read {_name(dataset, sample - 1)}"
    if code > 0:
        return f"A worker that reads the data set ended with code {code}{name}: the data set ends its process."
    killer = signal.Signals(-code).name
    why = " The system does so when memory is short: try fewer trainer.workers." if killer == "SIGKILL" else ""
    return f"A worker that reads the data set was killed by {killer}{name}.{why}"


def _name(dataset: Dataset[Any], index: int) -> str:
    name = getattr(dataset, "name", None)
    return str(name(index)) if callable(name) else f"sample {index}"


def _workers(iterator: Any) -> Sequence[BaseProcess]:
    # without workers, torch's iterator has none
    found: Sequence[BaseProcess] = getattr(iterator, "_workers", ())
    return found


def _end(iterator: Any) -> None:
    """End the workers; kills those that do not."""
    workers = _workers(iterator)
    if not workers:
        return
    # a worker in the middle of a sample looks up after it, and one that hangs never
    killer = threading.Timer(PATIENCE, _signal_kill, args=[workers])
    killer.daemon = True
    killer.start()
    try:
        # torch raises for a worker that is killed
        with suppress(RuntimeError):
            iterator._shutdown_workers()
    finally:
        killer.cancel()
        _kill(workers)


def _kill(workers: Sequence[BaseProcess]) -> None:
    _signal_kill(workers)
    for worker in workers:
        with suppress(AssertionError, ValueError):
            worker.join()


def _signal_kill(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        # a process that another forked from this one may not touch its children
        with suppress(AssertionError, ValueError):
            worker.kill()


def _set_up(worker: int) -> None:
    # a terminal and a scheduler signal all processes of a run: the run saves, and ends its workers itself. A handler
    # that does nothing, not SIG_IGN, which the programs that a data set starts would inherit
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _stay)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if sys.platform == "linux":
        # a worker that hangs in a sample would never see that its parent was killed
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _stay(number: int, frame: object) -> None:
    pass


def _collate(own: Callable[[list[Any]], Batch] | None, samples: list[Any]) -> Any:
    for sample in samples:
        if isinstance(sample, Failure):
            return sample
    try:
        if own is None:
            return default_collate(samples)
        batch = own(samples)
        # a plain tuple: pinning a NamedTuple makes it anew from its fields
        return (batch.x, batch.y, batch.weight, batch.mask)
    except Exception as error:
        return _failure(error, "The samples of a batch do not fit together")


def _failure(error: Exception, what: str) -> Failure:
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
        # torch would send its text, with the traceback in it, as the error's message
        except Exception as error:
            return _failure(error, f"Reading {_name(self._dataset, index)} failed")
