"""A task on the machine that a scheduler has chosen: made, asked to stop, given back after a preemption, answered.

The scheduler's own results are pickles, and a sweep's folder may come from somebody else. So a task answers in a small
JSON file, and whatever a job has produced is in its run folder.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from dlrun.errors import Pruned
from dlrun.storage.files.json_text import dumps
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.files.waiting import pause
from dlrun.sweeps.cluster import slurm_job
from dlrun.sweeps.cluster.answers import Answer
from dlrun.sweeps.pool.task import Task, attempt
from dlrun.sweeps.pool.worker import redirect

POLL = 1.0
"""Seconds between two looks for a request to stop."""

PASSED_ON = ("DLRUN_",)
"""The beginnings of environment variables that a task needs wherever it runs."""


@dataclass(frozen=True)
class NodeTask:
    """A task that can be made anywhere, and any number of times: a job goes on from its last checkpoint.

    It is submitted as it is. `answer` and `stop` are files of the sweep's folder.
    """

    task: Task
    answer: Path
    stop: Path
    folder: Path = field(default_factory=Path.cwd)
    environment: Mapping[str, str] = field(
        default_factory=lambda: {k: v for k, v in os.environ.items() if k.startswith(PASSED_ON)}
    )

    def __call__(self) -> None:
        """Make the call and answer; a preempted task is given back to the scheduler instead."""
        os.environ.update(self.environment)
        os.chdir(self.folder)
        began = time.monotonic()
        redirect(self.task.log)
        # a segmentation fault leaves its traceback in the log
        faulthandler.enable()
        with Requests(self.stop) as requests:
            kind, content, message = attempt(lambda: self._call(requests))
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            if kind == "exit" and requests.is_preempted():
                message = requests.give_back()
        answer = Answer()
        answer.kind = "pruned" if kind == "error" and isinstance(content, Pruned) else kind
        answer.message, answer.code = message, int(content) if kind == "exit" else None
        answer.seconds = round(time.monotonic() - began, 3)
        write_atomically(self.answer, dumps(answer.to_dict()).encode())

    def checkpoint(self) -> Any:
        """What submitit is to submit once more after a preemption: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _call(self, requests: Requests) -> Any:
        requests.follow()
        return self.task.call()


class Requests:
    """The requests to stop that come while a task is made, as a context.

    A scheduler sends SIGTERM, and SIGUSR2 some time before the limit of time (`signal_delay_s`) or with a preemption.
    The sweep's launcher writes the name of a signal into the file `stop`, which works on every machine.
    """

    def __init__(self, stop: Path) -> None:
        self._stop = stop
        self._before: dict[int, Any] = {}
        self._limit_reached = False
        self._over = threading.Event()

    def __enter__(self) -> Requests:
        if threading.current_thread() is threading.main_thread():
            handlers: dict[int, Any] = {
                signal.SIGINT: signal.default_int_handler,
                signal.SIGTERM: _exit,
                # a request to prune may come when the training is over, and must not kill
                signal.SIGUSR1: signal.SIG_IGN,
                signal.SIGUSR2: self._leave,
            }
            self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def follow(self) -> None:
        """Obey the file `stop` from now on; raises `SystemExit` if it is there already."""
        if self._stop.exists():
            raise SystemExit(128 + signal.SIGTERM)
        threading.Thread(target=self._watch, daemon=True).start()

    def is_preempted(self) -> bool:
        """Whether the scheduler has ended it, and not a person."""
        return not self._stop.exists() and (self._limit_reached or slurm_job.is_preempted())

    def give_back(self) -> str:
        """Have the scheduler run it again; does not return if it will.

        Returns why it will not.
        """
        again = self._before.get(signal.SIGUSR2)
        if not callable(again):
            return "ended by the scheduler"
        try:
            # submitit's handler: it counts the limits of time that were reached, requeues, and exits
            again(signal.SIGUSR2, None)
        except Exception as error:
            return " ".join(str(error).split()) or type(error).__name__
        return "ended by the scheduler"

    def _leave(self, number: int, frame: FrameType | None) -> None:
        self._limit_reached = True
        # as a SIGTERM: a run saves and ends
        os.kill(os.getpid(), signal.SIGTERM)

    def _watch(self) -> None:
        asked = ""
        while not self._over.is_set():
            with suppress(OSError):
                wanted = self._stop.read_text()
                if wanted != asked and wanted in ("SIGTERM", "SIGUSR1"):
                    asked = wanted
                    os.kill(os.getpid(), signal.Signals[wanted])
            pause(POLL)


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
