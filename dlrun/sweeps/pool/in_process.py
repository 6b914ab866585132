"""Jobs one after another in this process: for those that are over before a process of their own would have begun."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dlrun.runs.interrupt import Interrupt, stopped
from dlrun.sweeps.pool.isolation import apart
from dlrun.sweeps.pool.slots import Slot, gpus, lock
from dlrun.sweeps.pool.task import Task, TaskResult, attempt, task_result
from dlrun.terminal import output
from dlrun.terminal.output import Output

TICK = 0.25
"""Seconds between two calls of `tick`, at the least."""


class Inside:
    """A context that holds a slot, in which tasks can be carried out here; what `Pool` is for processes.

    On a GPU `cuda` is the slot's meanwhile, so that what is built within lies where it will be trained. A task that
    raises or exits harms no other, and what it changes of the process is put back. One that kills its process ends
    the sweep.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._held = ExitStack()
        self._threads = 1
        self.running = 0

    def __enter__(self) -> Inside:
        self._threads = self._held.enter_context(_taken(self._slots)).threads
        return self

    def __exit__(self, *exception: object) -> None:
        self._held.close()

    def stop(self, key: int) -> None:
        """Do nothing: whoever asks has its turn when no task is carried out."""

    def run(
        self,
        tasks: Iterable[Task | None],
        *,
        done: Callable[[TaskResult], bool],
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Carry the tasks out, in their order.

        `done` is given each outcome, and returns False to have no further task started. Raises
        `KeyboardInterrupt` or `SystemExit(143)` after an interrupt, which the running task has obeyed.
        """
        ticked = 0.0
        with Interrupt() as interrupt:
            for task in filter(None, tasks):
                if interrupt.signal is not None:
                    break
                with self._counted():
                    if time.monotonic() > ticked + TICK:
                        tick()
                        ticked = time.monotonic()
                    found = _carried_out(task, interrupt, threads=self._threads)
                if not done(found):
                    break
        if interrupt.signal is not None:
            raise stopped(interrupt.signal)

    def together(
        self,
        call: Callable[[Interrupt, Output], Sequence[TaskResult]],
        *,
        log: Path,
        done: Callable[[TaskResult], bool],
    ) -> None:
        """Make a call that carries out several tasks at once; what is printed goes to the file `log`.

        The call is given the screen, for what a person is to see meanwhile, `done` each outcome. Raises what the
        call raises, and after an interrupt what `run` does.
        """
        with Interrupt() as interrupt:
            with output.duplicate() as screen, apart(log, threads=self._threads):
                outcomes = call(interrupt, screen)
            for found in outcomes:
                done(found)
        if interrupt.signal is not None:
            raise stopped(interrupt.signal)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.running = 1
        try:
            yield
        finally:
            self.running = 0


def _carried_out(task: Task, interrupt: Interrupt, *, threads: int) -> TaskResult:
    began = time.monotonic()
    with apart(task.log, threads=threads):
        kind, content, told = attempt(task.call)
    if kind == "error" and interrupt.signal is not None:
        # as the pool's jobs end that are asked to
        kind, content = "exit", 128 + (signal.SIGTERM if interrupt.signal == signal.SIGTERM else signal.SIGINT)
    return task_result(task, kind, content, told, seconds=time.monotonic() - began)


@contextmanager
def _taken(slots: Sequence[Slot]) -> Iterator[Slot]:
    """Hold the first slot whose place no other job of this machine has; wait where all are taken."""
    waits = False
    while True:
        for slot in slots:
            place = lock(slot)
            if place is not None:
                break
        else:
            if not waits:
                output.say("waiting for a GPU: other dlrun jobs of this machine have them all")
            waits = True
            time.sleep(TICK)
            continue
        break
    try:
        with _current(slot):
            yield slot
    finally:
        place.release()


@contextmanager
def _current(slot: Slot) -> Iterator[None]:
    """Have `cuda` mean the slot's GPU."""
    if slot.device is None:
        yield
        return
    import torch

    with torch.cuda.device(gpus().index(slot.device)):
        yield
