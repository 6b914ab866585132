"""The worker processes of a `DataLoader`: how they begin, die and end."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader

from dlrun.errors import RunError

PATIENCE = 3.0
"""Seconds that workers have to finish the sample that they are reading; then they are killed."""

FORK = "fork" if sys.platform == "linux" else None
"""How workers are made. A server of forks would be their parent, and not know when the run has died."""

PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux."""


class Deaths:
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
            if self._unseen and any(worker.exitcode for worker in workers_of(iterator)):
                raise RuntimeError("a worker has died meanwhile")
            self._unseen = False
            return next(iterator)
        finally:
            self._waits = False

    def _on_death(self, number: int, frame: object) -> None:
        if self._waits:
            self._raise(number, frame)
        self._unseen = True


def start(loader: DataLoader[Any]) -> Iterator[Any]:
    try:
        return iter(loader)
    except RuntimeError as error:  # the first worker may die before the last is there
        raise RunError(f"The workers that read the data set could not be started: {error}") from error


def next_result(iterator: Iterator[Any], deaths: Deaths, at: Callable[[int], str], default: Any) -> Any:
    """The next batch, or `default` at the end.

    Raises `RunError` for a worker that has died; `at` says where it was.
    """
    try:
        return deaths.next(iterator)
    except StopIteration:
        return default
    except Exception as error:
        # torch notices the death, or meets a broken pipe first
        for number, worker in enumerate(workers_of(iterator)):
            worker.join(0.2)
            if worker.exitcode:
                raise RunError(_describe_death(worker.exitcode, at(number))) from error
        raise


def _describe_death(code: int, where: str) -> str:
    if code > 0:
        return f"A worker that reads the data set ended with code {code}{where}: the data set ends its process."
    killer = signal.Signals(-code).name
    why = " The system does so when memory is short: try fewer trainer.workers." if killer == "SIGKILL" else ""
    return f"A worker that reads the data set was killed by {killer}{where}.{why}"


def workers_of(iterator: Any) -> Sequence[BaseProcess]:
    # without workers, torch's iterator has none
    found: Sequence[BaseProcess] = getattr(iterator, "_workers", ())
    return found


def end(iterator: Any) -> None:
    """End the workers; kills those that do not."""
    workers = workers_of(iterator)
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
        kill(workers)


def kill(workers: Sequence[BaseProcess]) -> None:
    _signal_kill(workers)
    for worker in workers:
        with suppress(AssertionError, ValueError):
            worker.join()


def _signal_kill(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        # a process that another forked from this one may not touch its children
        with suppress(AssertionError, ValueError):
            worker.kill()


def set_up(worker: int) -> None:
    # a terminal and a scheduler signal all processes of a run: the run saves, and ends its workers itself. A handler
    # that does nothing, not SIG_IGN, which the programs that a data set starts would inherit
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _stay)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # a worker that hangs in a sample would never see that its parent was killed
    end_with_parent(signal.SIGKILL)


def end_with_parent(number: int) -> None:
    """Let the kernel send this process a signal when its parent has ended; on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, number)


def _stay(number: int, frame: object) -> None:
    pass
