"""The protocols of a tracker.

To add one, follow them, give it a line in `trackers`, and add its name to `tracking.backends` in `config.settings`.

The uploader decides what is sent of a folder and when; a tracker only how. Every method but those of `Tracker`
may raise anything: the uploader then opens the run anew and tries again later. Of a folder and a tracker there is
one uploader at a time. It sends batches as the journal grows; at the end it asks once for the points that are
`missing` (the final metrics among them), sends these in a last batch, and finishes the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.content.journal_reader import Mark, MetricBatch, Point
from dlrun.tracking.content.metadata import Metadata
from dlrun.tracking.content.run_source import RunSource


class TrackedRun(Protocol):
    """A run or a sweep at a tracker."""

    @property
    def progress(self) -> Mark:
        """The mark of the journal up to which all is stored."""

    def send(self, metadata: Metadata | None = None, batch: MetricBatch | None = None) -> None:
        """Store points and texts, then metadata, last the progress.

        A point that `replaces` takes the place of one of its name and step, if there is one; a tracker that cannot
        remove points keeps both. The progress is the batch's mark. After a kill, the next uploader sends the same
        again: it must not be stored twice.
        """

    def missing(self, points: Sequence[Point]) -> list[Point]:
        """The points not yet stored with their step and value."""

    def send_files(self, path: Path, folder: str) -> None:
        """Store a file or folder under `folder`, replacing older files."""

    def mark_selected(self, jobs: Mapping[str, str]) -> None:
        """Mark these jobs of a sweep, by id, with a label each; no others keep a mark."""

    def finish(self, status: str, end: int) -> None:
        """Set the final status and end, in milliseconds since 1970."""

    def record(self) -> dict[str, str | None]:
        """Keys for the folder's summary, such as the run's id."""

    def close(self) -> None:
        """Release files and threads; a second call does nothing."""


class Connection(Protocol):
    """A tracker's open store, for one uploader."""

    def open_run(self, source: RunSource, metadata: Metadata, *, start: int) -> TrackedRun:
        """Find or make a run, with the status running.

        `start` is in milliseconds since 1970.
        """

    def open_sweep(self, sweep: SweepDir, name: str, experiment: str, metadata: Metadata, *, start: int) -> TrackedRun:
        """Find or make a sweep's run, as `open_run` does."""

    def transaction(self, source: RunSource) -> AbstractContextManager[None]:
        """Make the block one transaction, where possible and faster."""


class Tracker(Protocol):
    """A kind of tracker."""

    name: str  # in `tracking.backends`
    title: str  # in messages
    sorts: bool  # its pages sort by metrics: selected values are metrics of their own, `best/…`

    def check(self, *, system_metrics: bool) -> None:
        """Raise `UserError` before a training if nothing can be sent."""

    def location(self, folder: RunDir | SweepDir) -> str:
        """The store of a folder's run, without passwords.

        When it changes, the folder is sent anew.
        """

    def connect(self, folder: RunDir | SweepDir) -> Connection:
        """Open the store of a folder's run."""

    def explain(self, folder: RunDir | SweepDir, error: Exception) -> str | None:
        """What is wrong with the store, and what to type.

        None if the tracker may only be away, so that trying again may help.
        """

    def link(self, folder: RunDir | SweepDir) -> str:
        """The address to open, or the command to show it."""

    def delete(self, folder: RunDir | SweepDir) -> Path | None:
        """Remove a run or whole sweep, if it is there.

        Returns the folder that it belongs to instead, if `folder` is a copy of that: then nothing is removed. Raises
        `UserError` if the store cannot be reached.
        """
