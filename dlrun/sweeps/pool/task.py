"""A task of a sweep and what came of it, wherever it is carried out: in a process of its own, or in the runner's."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dlrun.errors import RunError

GRACE = 30.0
"""Seconds that a job whose launcher has died gets to save."""

Kind = Literal["value", "error", "exit"]


@dataclass(frozen=True)
class Task:
    """A `call` to make (in another process it is pickled); `log` gets what it prints (appended)."""

    key: int
    call: Callable[[], Any]
    label: str
    log: Path


@dataclass(frozen=True)
class TaskResult:
    """What came of a task: its value, or an error and a line about it (`exited with code 3`)."""

    key: int
    label: str
    log: Path
    value: Any
    error: BaseException | None
    message: str
    seconds: float


def attempt(call: Callable[[], Any]) -> tuple[Kind, Any, str]:
    """Make a call and return its value, its error or its exit code, and of an error a line; print what it raises."""
    try:
        return "value", call(), ""
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 0 if stopped.code is None else 1
        if not isinstance(stopped.code, int | None):
            print(stopped.code, file=sys.stderr)
        return "exit", code, ""
    except BaseException as error:
        traceback.print_exc()
        return "error", error, one_line(error)


def one_line(error: BaseException) -> str:
    """Return an error in one line.

    >>> one_line(ValueError("no such\\nthing"))
    'ValueError: no such thing'
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def task_result(task: Task, kind: Kind, content: Any, message: str, *, seconds: float) -> TaskResult:
    """Return what `attempt` found as the outcome of a task: that a job exits, whatever the code, is no success."""
    if kind == "value":
        return TaskResult(task.key, task.label, task.log, content, None, "", seconds)
    if kind == "exit":
        message = f"exited with code {content}"
        content = RunError(message)
    return TaskResult(task.key, task.label, task.log, None, content, message, seconds)
