"""Ctrl-C, SIGTERM and SIGUSR1 as a request: finish the step, save, and end.

A search prunes a run by SIGUSR1. A second Ctrl-C or SIGTERM ends at once. Of two nested contexts, a sweep's and a
job's, both get the signal: both end.

In a job of SLURM a second SIGTERM changes nothing, for it sends several; and SIGUSR1, by which users have themselves
told of the limit of time, is SIGTERM for a run of no sweep.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from dlrun.errors import Pruned

if TYPE_CHECKING:  # `dlrun --help` takes a signal too, and imports no torch
    from dlrun.engine.protocols import Ranks

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupt:
    """Keeps SIGINT, SIGTERM and SIGUSR1 in `signal` while it is entered.

    `obeyed_at_once` is true once a signal has raised, in the middle of a step. `prunes`: it is a run of a sweep.
    """

    def __init__(self, *, prunes: bool = True) -> None:
        self._scheduled = "SLURM_JOB_ID" in os.environ
        self._prunes = prunes or not self._scheduled
        self.signal: int | None = None
        self.obeyed_at_once = False
        self._at_once = self._from_others = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        # only the main thread of a process may set handlers; elsewhere (a notebook's worker) nothing is caught
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._note) for s in STOPPING}
        # a signal that came before this context was entered ends it too
        self.signal = self.signal or next((outer.signal for outer in self._around() if outer.signal), None)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stops(self, ranks: Ranks | None, wanted: Callable[[], bool] = lambda: False) -> Callable[[], bool]:
        """A function: is it time to stop, for a signal or because it is `wanted`?

        Of several processes all stop after the same step, for the signal of any.
        """
        if ranks is None:
            return lambda: self.signal is not None or wanted()

        def stop() -> bool:
            stopped, number = ranks.stop(self.signal is not None or wanted(), self.signal)
            if number and self.signal is None:
                # this process's own signal is likely under way: it is no second one
                self.signal, self._from_others = number, True
            return stopped

        return stop

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let the next SIGINT or SIGTERM raise at once.

        For a wait that a person may cut short.
        """
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        # for one job alone: a sweep that prunes it goes on
        if number == signal.SIGUSR1:
            self.signal = self.signal or (number if self._prunes else signal.SIGTERM)
            return
        # one with the preemption and one at the limit of time: nobody has lost patience
        if number == signal.SIGTERM and self.signal is not None and self._scheduled:
            return
        for outer in self._around():
            outer.signal = outer.signal or number
        # the second signal: the person does not want to wait for the step
        first, self._from_others = self._from_others, False
        if not first and (self._at_once or self.signal not in (None, signal.SIGUSR1)):
            self.obeyed_at_once = True
            raise exception_for(number)
        self.signal = number

    def _around(self) -> list[Interrupt]:
        """The contexts around this one, innermost first."""
        handler = self._before.get(signal.SIGINT)
        # the handler is a bound method: its object is the context that set it
        outer = getattr(handler, "__self__", None)
        return [outer, *outer._around()] if isinstance(outer, Interrupt) else []


class EarlyInterrupt(Interrupt):
    """Raises `KeyboardInterrupt` at the first Ctrl-C, before a run.

    Libraries catch every exception in some of their imports: a later `Interrupt` then has the signal from its start.
    """

    def __enter__(self) -> EarlyInterrupt:
        # a terminal's background job ignores it, and so does dlrun then
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = {signal.SIGINT: signal.signal(signal.SIGINT, self._note)}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        raise KeyboardInterrupt


def noted(handler: Any) -> int | None:
    """The SIGINT or SIGTERM that an `Interrupt` has got, by its handler."""
    innermost = getattr(handler, "__self__", None)
    if not isinstance(innermost, Interrupt):
        return None
    got = [context.signal for context in (innermost, *innermost._around())]
    return next((number for number in got if number in (signal.SIGINT, signal.SIGTERM)), None)


def exception_for(number: int, step: int | None = None) -> BaseException:
    """The exception that ends a run after a signal."""
    if number == signal.SIGUSR1:
        return Pruned(f"stopped at step {step}")
    # 128 + n is the shell's exit status of a process ended by signal n
    return SystemExit(128 + number) if number == signal.SIGTERM else KeyboardInterrupt()
