"""The files by which tasks on other machines and the sweep's launcher know of each other.

    outputs/sweeps/<date>/<time>-<name>-<id>/.cluster/
        submitted.json  <task>.answer.json  <task>.taken  <task>.stop

A task is named by its job: `train-3` or `test-3`.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlrun.errors import Pruned, RunError
from dlrun.storage.files.json_text import dumps
from dlrun.storage.files.record import Key, Record
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.summary import read_record
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.pool.task import Task, TaskResult

ADVICE = "Delete it: the sweep goes on by what its jobs' folders say."


class Answer(Record):
    """How a task has ended: `kind` is `value`, `error`, `exit` or `pruned`."""

    __slots__ = ()

    kind = Key("")
    message = Key("")
    code = Key[int | None](None)
    seconds = Key(0.0)

    def result(self, task: Task, value: Any) -> TaskResult:
        """The task's result, with `value` if it has one."""
        made = TaskResult(task.key, task.label, task.log, value, None, "", self.seconds)
        if self.kind == "value":
            return made
        message = self.message or f"exited with code {self.code}"
        error = Pruned(message) if self.kind == "pruned" else RunError(message)
        return TaskResult(task.key, task.label, task.log, None, error, message, self.seconds, self.code)


class Submissions(Record):
    """The scheduler's names of tasks, by the tasks'."""

    __slots__ = ()

    executor = Key("")
    tasks = Key[Mapping[str, str]]({})


class Exchange:
    """The folder of these files."""

    def __init__(self, sweep: SweepDir) -> None:
        self.path = sweep.path / ".cluster"

    def answer(self, task: str) -> Path:
        return self.path / f"{task}.answer.json"

    def stop(self, task: str) -> Path:
        return self.path / f"{task}.stop"

    def read_answer(self, task: str) -> Answer | None:
        """The task's answer; None before it has one."""
        path = self.answer(task)
        return read_record(path, Answer, advice=ADVICE) if path.exists() else None

    def ask(self, task: str, number: int) -> None:
        """Ask a task to stop, by SIGTERM or SIGUSR1."""
        write_atomically(self.stop(task), signal.Signals(number).name.encode())

    def take(self, task: str) -> None:
        """Record that a task's answer was read: the task is over, whatever the scheduler still says."""
        self._taken(task).touch()

    def is_taken(self, task: str) -> bool:
        return self._taken(task).exists()

    def _taken(self, task: str) -> Path:
        return self.path / f"{task}.taken"

    def prepare(self, task: str) -> None:
        """Remove the files of an earlier submission."""
        self.path.mkdir(parents=True, exist_ok=True)
        for path in (self.answer(task), self.stop(task), self._taken(task)):
            path.unlink(missing_ok=True)

    def submissions(self, executor: str) -> dict[str, str]:
        """The scheduler's names of the tasks that were submitted to it."""
        path = self.path / "submitted.json"
        found = read_record(path, Submissions, advice=ADVICE) if path.exists() else Submissions()
        return dict(found.tasks) if found.executor == executor else {}

    def record(self, executor: str, tasks: Mapping[str, str]) -> None:
        """Add the scheduler's names of tasks."""
        found = Submissions()
        found.executor, found.tasks = executor, self.submissions(executor) | dict(tasks)
        write_atomically(self.path / "submitted.json", dumps(found.to_dict()).encode())
