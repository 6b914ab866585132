"""The protocols of a tracker.

To add one, follow them, give it a line in `trackers`, and add its name to `tracking.backends` in `config.settings`.

The uploader decides what is sent of a folder and when; a tracker only how. Every method but those of `Tracker`
may raise anything: the uploader then opens the run anew and tries again later. Of a folder and a tracker there is
one uploader at a time. It sends batches as the journal grows; at the end it asks once for the points that are
`missing` (the final metrics among them), sends these in a last batch, and finishes the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.journal_reader import MetricBatch, Point
from dlrun.tracking.metadata import Metadata
from dlrun.tracking.run_source import RunSource


class TrackedRun(Protocol):
    """A run at a tracker, or a sweep over its jobs."""

    @property
    def progress(self) -> int:
        """The journal's byte up to which all is stored."""

    def send(self, metadata: Metadata | None = None, batch: MetricBatch | None = None) -> None:
        """Store points and texts, then metadata, and last the batch's end as progress.

        After a kill, the next uploader sends the same again: it must not be stored twice.
        """

    def missing(self, points: Sequence[Point]) -> list[Point]:
        """The points without an equal one, of the same step and value, at the tracker."""

    def send_files(self, path: Path, folder: str) -> None:
        """Store a file, or a folder's files, under the name `folder`, replacing older ones."""

    def finish(self, status: str, end: int) -> None:
        """Set the final status and the time of the end, in milliseconds since 1970."""

    def record(self) -> dict[str, str | None]:
        """Keys for the folder's summary, for example the run's id at the tracker."""

    def close(self) -> None:
        """Free what the run holds open. It may be closed twice, and opened again."""


class Connection(Protocol):
    """An open store of a tracker, for all runs of one uploader."""

    def open_run(self, source: RunSource, metadata: Metadata, *, start: int) -> TrackedRun:
        """Find or make a run, and set its status to running. `start` is in milliseconds since 1970."""

    def open_sweep(self, sweep: SweepDir, name: str, experiment: str, metadata: Metadata, *, start: int) -> TrackedRun:
        """Find or make the parent of a sweep's jobs, as `open_run` does a run."""

    def transaction(self, source: RunSource) -> AbstractContextManager[None]:
        """Make the block one transaction, if the tracker can and gains time by it."""


class Tracker(Protocol):
    """A kind of tracker: its name in `tracking.backends`, and its title in messages."""

    name: str
    title: str

    def check(self, *, system_metrics: bool) -> None:
        """Raise `UserError` if nothing could be sent. Called before a training."""

    def location(self, folder: RunDir | SweepDir) -> str:
        """The store of a folder's run, without passwords: after a change of it, the folder is sent anew."""

    def connect(self, folder: RunDir | SweepDir) -> Connection:
        """Open the store of a folder's run."""

    def link(self, folder: RunDir | SweepDir) -> str:
        """The address of a run or sweep, or the command to show it."""

    def delete(self, folder: RunDir | SweepDir) -> None:
        """Remove a run, or a sweep with its jobs, if it is there.

        Raises `UserError` if the store cannot be reached.
        """
