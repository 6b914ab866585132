"""What a person sees of the jobs while they run: a live line, a line a job, each failure at once and again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dlrun.errors import Pruned
from dlrun.sweeps.pool.task import TaskResult
from dlrun.terminal import output
from dlrun.terminal.format import duration, number

TAIL = 6
"""Lines of a failed job's log that are shown."""


@dataclass
class Display:
    """Shows `total` jobs (None: not known beforehand) and the metric `monitor` of those that finish."""

    total: int | None
    monitor: str = ""
    done: int = 0
    failed: int = 0
    begun: float = field(default_factory=time.monotonic)
    lasted: float = field(default_factory=time.monotonic)

    def ended(self, outcome: TaskResult) -> None:
        """Show what came of a job: a line in the log, and on the screen too if there is no live line."""
        self.done += 1
        if failure(outcome):
            self.failed += 1
            output.warn(account(outcome))
        else:
            output.log(self._line(outcome))

    def line(self, running: int, doing: str = "") -> str:
        """Return the live line: what is done, what runs, what it is `doing`, or what is left and for how long."""
        total = "" if self.total is None else f" of {self.total}"
        failed = f", {self.failed} failed" if self.failed else ""
        rest = f": {doing}" if doing else self._left(running)
        return f"  {self.done}{total} done{failed}, {running} running{rest}"

    def tick(self, running: int, doing: str = "", *, lasting: bool = False) -> None:
        """Show the live line again; one that is `lasting` in the log too, and on a screen without live lines."""
        line = self.line(running, doing)
        output.live(line)
        if lasting:
            output.log(line)

    def beat(self, running: int) -> None:
        """Show the live line again, every 30 s one that lasts: for jobs that get no line each."""
        now = time.monotonic()
        lasting = now - self.lasted > output.HEARTBEAT
        self.tick(running, lasting=lasting)
        self.lasted = now if lasting else self.lasted

    def _line(self, outcome: TaskResult) -> str:
        total = "" if self.total is None else f"/{self.total}"
        result = outcome.message if outcome.error else _metric(outcome.value, self.monitor)
        said = [f"{self.done}{total}", outcome.label, result, duration(outcome.seconds)]
        return "  " + "  ".join(filter(None, said))

    def _left(self, running: int) -> str:
        if self.total is None or not self.done:
            return ""
        left = self.total - self.done
        seconds = left * (time.monotonic() - self.begun) / self.done
        return f", {max(0, left - running)} left, about {duration(seconds)}"


def failure(outcome: TaskResult) -> bool:
    """Return whether a job failed: one that was pruned, or asked to end, did not."""
    stopped = outcome.message in ("exited with code 143", "killed by SIGTERM")
    return outcome.error is not None and not isinstance(outcome.error, Pruned) and not stopped


def account(outcome: TaskResult, *, lines: int = TAIL) -> str:
    """Return what is to be said of a failed job: its overrides, what happened, its log and that log's end."""
    tail = "".join(f"\n    {line}" for line in _tail(outcome.log, lines))
    return f"job {outcome.key} failed: {outcome.label}\n  {outcome.message}\n  {outcome.log}{tail}"


def failures(outcomes: Sequence[TaskResult]) -> str:
    """Return an account of all that failed, to be said at the end (empty if none did)."""
    failed = [outcome for outcome in outcomes if failure(outcome)]
    if not failed:
        return ""
    accounts = "\n".join(account(outcome, lines=0) for outcome in failed)
    return f"{len(failed)} of {len(outcomes)} jobs failed:\n{accounts}"


def _tail(log: Path, lines: int) -> list[str]:
    """Return the last lines that say something."""
    if not lines or not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 10_000))
        text = file.read().decode(errors="replace")
    return [line for line in text.splitlines() if line.strip()][-lines:]


def _metric(value: object, monitor: str) -> str:
    metrics = value.get("metrics") if isinstance(value, Mapping) else None
    if not isinstance(metrics, Mapping) or monitor not in metrics:
        return ""
    return f"{monitor} {number(metrics[monitor])}"
