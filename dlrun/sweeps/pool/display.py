"""The screen while jobs run: a live line, a line a job, and each failure at once and again at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dlrun.errors import Pruned
from dlrun.sweeps.pool.task import TaskResult
from dlrun.terminal import output
from dlrun.terminal.format import counted, duration, number

TAIL = 6
"""The last lines of a failed job's log that are shown."""


@dataclass
class Display:
    """Shows the progress of jobs, and their metric `monitor`."""

    total: int | None  # None: unknown
    monitor: str = ""
    done: int = 0
    failed: int = 0
    begun: float = field(default_factory=time.monotonic)
    lasted: float = field(default_factory=time.monotonic)

    def show_result(self, result: TaskResult) -> None:
        """Show a failure; log any other result."""
        self.done += 1
        if is_failure(result):
            self.failed += 1
            output.warn(describe_failure(result))
        else:
            output.log(self._line(result))

    def line(self, running: int, doing: str = "") -> str:
        """The live line: progress, then `doing` or the time left."""
        total = "" if self.total is None else f" of {self.total}"
        failed = f", {self.failed} failed" if self.failed else ""
        rest = f": {doing}" if doing else self._left(running)
        return f"  {self.done}{total} done{failed}, {running} running{rest}"

    def show(self, running: int, doing: str = "", *, lasting: bool = False) -> None:
        """Update the live line; a `lasting` one is logged too."""
        line = self.line(running, doing)
        output.live(line)
        if lasting:
            output.log(line)

    def heartbeat(self, running: int) -> None:
        """Update the live line; log one every 30 s."""
        now = time.monotonic()
        lasting = now - self.lasted > output.HEARTBEAT
        self.show(running, lasting=lasting)
        self.lasted = now if lasting else self.lasted

    def _line(self, result: TaskResult) -> str:
        total = "" if self.total is None else f"/{self.total}"
        shown = result.message if result.error else _metric(result.value, self.monitor)
        words = [f"{self.done}{total}", result.label, shown, duration(result.seconds)]
        return "  " + "  ".join(filter(None, words))

    def _left(self, running: int) -> str:
        if self.total is None or not self.done:
            return ""
        left = self.total - self.done
        # elapsed seconds a finished job: the slots side by side are in it
        seconds = left * (time.monotonic() - self.begun) / self.done
        return f", {max(0, left - running)} left, about {duration(seconds)}"


def is_failure(result: TaskResult) -> bool:
    """True unless a job succeeded, was pruned or was stopped."""
    return result.error is not None and not isinstance(result.error, Pruned) and not result.interrupted


def describe_failure(result: TaskResult, *, lines: int = TAIL) -> str:
    """A failed job's overrides, message, and end of its log."""
    tail = "".join(f"\n    {line}" for line in _tail(result.log, lines))
    return f"job {result.key} failed: {result.label}\n  {result.message}\n  {result.log}{tail}"


def describe_failures(results: Sequence[TaskResult]) -> str:
    """All failures in one text; empty without any."""
    failed = [result for result in results if is_failure(result)]
    if not failed:
        return ""
    told = "\n".join(describe_failure(result, lines=0) for result in failed)
    return f"{len(failed)} of {counted(len(results), 'job')} failed:\n{told}"


def _tail(log: Path, lines: int) -> list[str]:
    if not lines or not log.exists():
        return []
    with log.open("rb") as file:
        # a log may be long: its last 10 kB have the lines
        file.seek(max(0, log.stat().st_size - 10_000))
        text = file.read().decode(errors="replace")
    return [line for line in text.splitlines() if line.strip()][-lines:]


def _metric(value: object, monitor: str) -> str:
    metrics = value.get("metrics") if isinstance(value, Mapping) else None
    if not isinstance(metrics, Mapping) or monitor not in metrics:
        return ""
    return f"{monitor} {number(metrics[monitor])}"
