"""What the loop finds out, written into the run's folder and shown."""

from __future__ import annotations

from typing import Any

from dlrun import checkpoint, console
from dlrun.errors import RunError
from dlrun.journal import Journal
from dlrun.presentation import Progress
from dlrun.rundir import RunDir, wait_until

PATIENCE = 600.0
"""Seconds for which a run that has ended waits for space to write its weights."""


class Recorder:
    """Writes what the loop finds out into the run's folder, and shows it.

    On a full disk the last good checkpoint stays and training goes on; `insist` waits at the end.
    """

    def __init__(self, run: RunDir, journal: Journal, progress: Progress) -> None:
        self._run = run
        self._journal = journal
        self._progress = progress
        self._best_step: int | None = None
        self._unwritten: tuple[dict[str, Any], dict[str, Any] | None] | None = None

    def point(self, step: int, epoch: float, values: dict[str, float]) -> None:
        """Append a point to the journal and show it."""
        self._journal.metrics(step, epoch, values)
        self._progress.point(step, epoch, values)

    def save(self, content: dict[str, Any], best: dict[str, Any] | None) -> None:
        """Write the checkpoints."""
        self._unwritten = content, best
        try:
            self._write()
        except OSError as error:
            console.warn(f"No checkpoint at step {content['state']['step']} ({error}); the one before it stays.")

    def insist(self) -> None:
        """Wait until the last checkpoint can be written; raise `RunError` if the disk stays full."""
        if self._unwritten is None:
            return
        console.warn("The trained weights are in memory only. Waiting for space on the disk (Ctrl-C gives them up) …")
        if not wait_until(self._tried, PATIENCE, poll=1.0):
            raise RunError(f"The disk stayed full for {console.duration(PATIENCE)}: the last weights are not saved.")

    def _tried(self) -> bool:
        try:
            self._write()
        except OSError:
            return False
        return True

    def _write(self) -> None:
        if self._unwritten is None:
            return
        content, best = self._unwritten
        # the best first: a `last` that names a best step finds its weights
        if best and best["step"] != self._best_step:
            checkpoint.save(self._run.best, best)
            self._best_step = best["step"]
        checkpoint.save(self._run.last, content)
        self._journal.sync()
        self._unwritten = None
