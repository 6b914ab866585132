"""A task and its result, in whichever process it runs."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dlrun.errors import RunError

GRACE = 30.0
"""Seconds that a job has for saving once its launcher has died."""

Kind = Literal["value", "error", "exit"]


@dataclass(frozen=True)
class Task:
    """A call to make, with its output appended to `log`."""

    key: int
    call: Callable[[], Any]
    label: str
    log: Path


@dataclass(frozen=True)
class TaskResult:
    """A task's value, or its error and a message."""

    key: int
    label: str
    log: Path
    value: Any
    error: BaseException | None
    message: str  # one line, as `exited with code 3`
    seconds: float
    exit_code: int | None = None  # minus the signal, of a task that a signal has killed

    @property
    def interrupted(self) -> bool:
        """Whether it ended because somebody asked it to: Ctrl-C or SIGTERM."""
        return self.exit_code in (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)


def attempt(call: Callable[[], Any]) -> tuple[Kind, Any, str]:
    """Make a call; returns the kind, content and message.

    The content is the call's value, error or exit code. An error's traceback is printed.
    """
    try:
        return "value", call(), ""
    except SystemExit as stopped:
        # as Python itself: None is 0, and a text is printed and becomes 1
        code = stopped.code if isinstance(stopped.code, int) else 0 if stopped.code is None else 1
        if not isinstance(stopped.code, int | None):
            print(stopped.code, file=sys.stderr)
        return "exit", code, ""
    except BaseException as error:
        traceback.print_exc()
        return "error", error, one_line(error)


def one_line(error: BaseException) -> str:
    """An error's type and message in one line.

    >>> one_line(ValueError("no such\\nthing"))
    'ValueError: no such thing'
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def task_result(task: Task, kind: Kind, content: Any, message: str, *, seconds: float) -> TaskResult:
    """A task's result from the values of `attempt`."""
    if kind == "value":
        return TaskResult(task.key, task.label, task.log, content, None, "", seconds)
    code = None
    if kind == "exit":
        # with code 0 too: the job has not returned its result
        code = int(content)
        message = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        content = RunError(message)
    return TaskResult(task.key, task.label, task.log, None, content, message, seconds, code)
