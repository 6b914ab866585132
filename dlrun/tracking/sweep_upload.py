"""A sweep, sent to one tracker: a parent run first, then each job under it as its folder appears."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dlrun.errors import DamagedFile
from dlrun.storage import manifest
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.jobs.job import Job
from dlrun.storage.results import results
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal.format import counted
from dlrun.tracking.content.run_source import LoadModel, of_job
from dlrun.tracking.content.settings import experiment_of
from dlrun.tracking.content.state import Stamp, has_ended, only_uploader, sweep_stamp
from dlrun.tracking.content.sweep_description import selected_jobs, status, sweep_metadata
from dlrun.tracking.pending import is_job_pending
from dlrun.tracking.tracker import TrackedRun, Tracker
from dlrun.tracking.upload import BUSY, POLL, RunUpload, send_within

# seconds between two descriptions of the sweep as a whole
REFRESH = 60.0
# seconds after which a job that could not be sent is tried again
RETRY = 30.0
IN_A_ROW = 3
"""Runs or jobs that could not be sent, one after the other, after which a store is taken to be away."""

Report = Callable[[RunDir | SweepDir, Exception], None]


@dataclass(frozen=True)
class FollowedJob:
    """A running job's upload, and its folder's uploader lock."""

    upload: RunUpload
    lock: ExitStack


class SweepUpload:
    """The sending of a sweep.

    Any call may raise; a new `SweepUpload` then goes on. A job that cannot be sent is reported, and hinders no other.
    """

    def __init__(self, sweep: SweepDir, tracker: Tracker, report: Report, load_model: LoadModel | None = None) -> None:
        self.sweep, self.tracker, self._report, self._load_model = sweep, tracker, report, load_model
        self._connection = tracker.connect(sweep)
        self._written = _written(sweep)
        self._manifest = manifest.read(sweep)
        self._followed: dict[int, FollowedJob] = {}
        # by job that could not be sent, the time of the next try
        self._failed: dict[int, float] = {}
        # by job, the time of the summary that was sent
        self._sent: dict[int, int] = {}
        self._parent = self._open()
        self._described = time.monotonic()
        self._spent = 0.0

    def follow(self) -> None:
        """Send the jobs until the sweep ends, then its results.

        Raises `RuntimeError` if a job could not be sent.
        """
        try:
            over = False
            while not over or self._followed:
                over = has_ended(self.sweep)  # looked at first: what was written before the end is read after it
                self._advance(again=over)
                if not over or self._followed:
                    # little is taken from the jobs that are being trained
                    wait_until(lambda: has_ended(self.sweep), max(POLL, self._spent / BUSY), poll=POLL)
            self._finish()
        finally:
            for n in list(self._followed):
                self._leave(n)
            self._parent.close()

    def _open(self) -> TrackedRun:
        config = self._manifest.jobs[0].config if self._manifest.jobs else {}
        parent = self._connection.open_sweep(
            self.sweep,
            f"{self._manifest.name}-{self.sweep.id}",
            experiment_of(config),
            sweep_metadata(self.sweep, self._manifest, results(self.sweep, self._manifest)),
            start=round(self._manifest.created * 1000),
        )
        # at once: the jobs name their parent
        with self.sweep.edit_summary() as summary:
            summary.update(parent.record())
        return parent

    def _advance(self, *, again: bool) -> None:
        """Look at each job once; `again` includes lately failed ones."""
        if (now := _written(self.sweep)) != self._written:
            self._written, self._manifest = now, manifest.read(self.sweep)  # a search adds jobs
        self._spent, in_a_row = 0.0, 0
        for job in self._manifest.jobs:
            if not again and time.monotonic() < self._failed.get(job.n, 0.0):
                continue
            try:
                self._look(job)
                self._failed.pop(job.n, None)
                in_a_row = 0
            except Exception as error:  # whatever a folder, the network or the store has
                self._leave(job.n)
                # a damaged file is no fault of the store
                in_a_row += not isinstance(error, DamagedFile)
                # a broken job is left for later, a store that is away for a new connection
                if in_a_row == IN_A_ROW:
                    raise
                self._failed[job.n] = time.monotonic() + RETRY
                self._report(self.sweep.job(job.n), error)
        if time.monotonic() > self._described + REFRESH:
            self._describe(ended=False)

    def _look(self, job: Job) -> None:
        """Send a job's news; leave it once it has ended."""
        if job.n not in self._followed and not self._begin(job):
            return
        upload = self._followed[job.n].upload
        if not has_ended(upload.run):
            began = time.monotonic()
            upload.advance()
            self._spent += time.monotonic() - began
            return
        upload.finish()
        self._leave(job.n)

    def _begin(self, job: Job) -> bool:
        """Follow a job; False if nothing is left to send."""
        changed = _mtime(self.sweep.run(job.n, job.identity).path / "summary.json")
        if not changed or changed == self._sent.get(job.n):
            return False  # it has not begun, or was sent as it is
        source = of_job(self.sweep, job, self._load_model)
        if not is_job_pending(source, self.tracker):
            self._sent[job.n] = changed
            return False
        with ExitStack() as lock:
            if not lock.enter_context(only_uploader(source.home, self.tracker.name)):
                return False  # it has an uploader of its own
            upload = RunUpload(source, self.tracker, self._connection)
            # from here on `_leave` frees the lock
            self._followed[job.n] = FollowedJob(upload, lock.pop_all())
        return True

    def _leave(self, n: int) -> None:
        followed = self._followed.pop(n, None)
        if followed:
            with followed.lock:
                followed.upload.close()

    def _describe(self, *, ended: bool) -> None:
        found = results(self.sweep, self._manifest)
        self._parent.send(sweep_metadata(self.sweep, self._manifest, found, ended=ended))
        self._described = time.monotonic()

    def _finish(self) -> None:
        """Send the results; raises `RuntimeError` if a job is missing."""
        self.sweep.status()  # a killed sweep's summary says so from here on
        # taken first: what is written while this sends must be seen as lacking
        stamp = self._stamp()
        self._describe(ended=True)
        if self.sweep.report.is_dir():
            send_within(self._parent, self.sweep.report, "report", home=self.sweep.path)
        self._parent.mark_selected(selected_jobs(self.sweep, self._manifest))
        found = results(self.sweep, self._manifest)
        self._parent.finish(status(self.sweep, found), round(max(time.time(), self._manifest.created) * 1000))
        if self._failed:
            raise RuntimeError(f"{len(self._failed)} of {counted(len(self._manifest.jobs), 'job')} could not be sent")
        with self.sweep.edit_summary() as summary:
            if stamp == self._stamp():  # else it was resumed meanwhile
                summary.mark_sent(self.tracker.name, stamp.now)

    def _stamp(self) -> Stamp:
        return sweep_stamp(self.sweep, self.sweep.summary(), self.tracker.location(self.sweep))


def _written(sweep: SweepDir) -> tuple[int, int]:
    """When the sweep's jobs were written."""
    return _mtime(sweep.manifest), _mtime(sweep.added)


def _mtime(file: Path) -> int:
    """A file's last change in nanoseconds; 0 without a file."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
