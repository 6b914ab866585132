"""The protocols of a tracker, where people look at runs. To add one: follow them, and give it a line in `trackers`.

The uploader decides what is sent of a folder and when; a tracker only how. Every method but those of `Tracker`
may raise anything: the uploader then tries the run again later.
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
        """The byte of the journal up to which the tracker has it; stored with the points, or after them."""

    def send(self, metadata: Metadata | None = None, batch: MetricBatch | None = None) -> None:
        """Store points and texts, then metadata, and last the batch's end as progress.

        An uploader that is killed in between sends the same again: it must not be stored twice.
        """

    def missing(self, points: Sequence[Point]) -> list[Point]:
        """Those of some points whose step and value the tracker lacks, at whatever time they were logged."""

    def send_files(self, path: Path, folder: str) -> None:
        """Store a file, or all files of a folder, under the name `folder`; older ones are replaced."""

    def finish(self, status: str, end: int) -> None:
        """Set the final status and the time of the end, in milliseconds since 1970."""

    def record(self) -> dict[str, str | None]:
        """Keys for the folder's summary, for example the run's id at the tracker and the address of its page."""

    def close(self) -> None:
        """Free what the run holds open. It may be closed twice, and opened again."""


class Connection(Protocol):
    """A tracker's store, opened once by an uploader for all runs that it sends."""

    def open_run(self, source: RunSource, metadata: Metadata, *, start: int) -> TrackedRun:
        """Find or make a run, and set its status to running. `start` is in milliseconds since 1970."""

    def open_sweep(self, sweep: SweepDir, name: str, experiment: str, metadata: Metadata, *, start: int) -> TrackedRun:
        """Find or make the parent of a sweep's jobs, as `open_run` does a run."""

    def transaction(self, source: RunSource) -> AbstractContextManager[None]:
        """Store the calls of the block wholly or not at all, if the tracker can and if it is faster."""


class Tracker(Protocol):
    """A kind of tracker: its name in `tracking.backends`, and its title in messages."""

    name: str
    title: str

    def check(self, *, system_metrics: bool) -> None:
        """Raise `UserError` before anything is trained, if nothing could be sent later."""

    def location(self, folder: RunDir | SweepDir) -> str:
        """The store of a folder's run, without passwords: after a change of it, the folder is sent anew."""

    def connect(self, folder: RunDir | SweepDir) -> Connection:
        """Open the store of a folder's run."""

    def link(self, folder: RunDir | SweepDir) -> str:
        """The address of a run or sweep, or the command that shows it."""

    def delete(self, folder: RunDir | SweepDir) -> None:
        """Remove a run, or a sweep with its jobs; one that the tracker does not have is no error.

        Raises `UserError` if the store cannot be reached.
        """
