"""A scheduler in the place of SLURM: each task is a process, waits while `held`, and runs again after a preemption."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

import cloudpickle

from dlrun.sweeps.pool import fork_server

REQUEUED = 144


def run(call: bytes) -> None:
    """What submitit does on a node."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # the fork server has them blocked
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    # its handler of the signal before the limit of time: requeue, and exit
    signal.signal(signal.SIGUSR2, lambda number, frame: sys.exit(REQUEUED))
    cloudpickle.loads(call)()


class StandInTask:
    """A task: its process, or none while it waits."""

    def __init__(self, id: str, call: bytes) -> None:
        self.id, self.call, self.runs = id, call, 0
        self.process: BaseProcess | None = None

    def lives(self) -> bool:
        if StandIn.held and self.process is None:
            return True
        if self.process is None or (self.process.exitcode == REQUEUED):
            self._start()
        assert self.process is not None and self.process.pid is not None
        if StandIn.preempt is not None and StandIn.preempt(self):
            os.kill(self.process.pid, signal.SIGUSR2)
        # one that is to run again lives
        return self.process.is_alive() or self.process.exitcode == REQUEUED

    def _start(self) -> None:
        context: Any = fork_server.context()
        self.runs += 1
        self.process = context.Process(target=run, args=(self.call,))
        with fork_server.clean_start():
            self.process.start()

    def why(self) -> str:
        return "ended by the stand-in"

    def withdraw(self) -> bool:
        if self.process is not None:
            return False
        StandIn.tasks.pop(self.id)
        return True

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()


class StandIn:
    """An `Executor` whose tasks outlive it."""

    name = "slurm"
    survives = True
    queues = True
    width = 2
    held: ClassVar[bool] = False
    preempt: ClassVar[Callable[[StandInTask], bool] | None] = None
    tasks: ClassVar[dict[str, StandInTask]] = {}

    def __init__(self, launcher: object, folder: Path) -> None:
        pass

    def submit(self, calls: Sequence[Callable[[], None]]) -> list[StandInTask]:
        made = [StandInTask(f"{len(self.tasks) + n}", cloudpickle.dumps(call)) for n, call in enumerate(calls)]
        self.tasks.update({task.id: task for task in made})
        return made

    def find(self, id: str) -> StandInTask | None:
        return self.tasks.get(id)
