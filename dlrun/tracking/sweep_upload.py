"""A sweep, shown: a parent run first, then each job under it as its folder appears."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dlrun.storage import manifest
from dlrun.storage.manifest import Job
from dlrun.storage.results import results
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking import sweep_note
from dlrun.tracking.mlflow import pages
from dlrun.tracking.mlflow.client import MlflowRun, noted
from dlrun.tracking.mlflow.connection import connect
from dlrun.tracking.mlflow.uri import artifact_folder, store_uri
from dlrun.tracking.state import attempted, ended, note_attempt, only_uploader, page, stamp_of_sweep
from dlrun.tracking.subject import of_job
from dlrun.tracking.upload import BUSY, POLL, Upload, pause

REFRESH = 60.0
"""Seconds between two descriptions of the sweep as a whole."""
RETRY = 30.0
"""Seconds after which a job that could not be sent is tried again."""
IN_A_ROW = 3
"""After so many jobs that could not be sent, one after the other, the store is taken to be away."""

Tell = Callable[[RunDir, Exception], None]


@dataclass(frozen=True)
class Followed:
    """A job that is being trained: its upload, and what holds the uploader's lock of its folder."""

    upload: Upload
    lock: ExitStack


class SweepUpload:
    """A sweep that is being sent. Any call may raise; a new `SweepUpload` then goes on.

    `tell` hears of a job that could not be sent, which hinders no other.
    """

    def __init__(self, sweep: SweepDir, tell: Tell) -> None:
        self.sweep, self._tell = sweep, tell
        self._connection = connect(store_uri(sweep), artifact_folder(sweep))
        self._written = _mtime(sweep.manifest)
        self._what = manifest.read(sweep)
        self._followed: dict[int, Followed] = {}
        self._failed: dict[int, float] = {}
        self._seen: dict[int, int] = {}
        self._parent = self._open()
        self._described = time.monotonic()
        self._spent = 0.0

    def follow(self) -> None:
        """Send the jobs until the sweep has ended, then the rest, its report and its true status.

        Raises `RuntimeError` if a job could not be sent.
        """
        try:
            over = False
            while not over or self._followed:
                over = ended(self.sweep)  # looked at first: what was written before the end is read after it
                self._advance(again=over)
                if not over or self._followed:
                    # little is taken from the jobs that are being trained
                    pause(max(POLL, self._spent / BUSY), lambda: ended(self.sweep))
        finally:
            for n in list(self._followed):
                self._let_go(n)
        self._finish()

    def _open(self) -> MlflowRun:
        tracking = self._what.jobs[0].config.get("tracking") if self._what.jobs else None
        found = results(self.sweep, self._what)
        new = not attempted(self.sweep.path) and not self.sweep.summary().mlflow_run_id
        note_attempt(self.sweep.path)
        remote = self._connection.open_run(
            str((tracking or {}).get("experiment", "dlrun")),
            tags=sweep_note.tags(self.sweep, self._what, found)
            | noted(sweep_note.note(self.sweep, self._what, found))
            | {"mlflow.runName": f"{self._what.name}-{self.sweep.id}"},
            start=round(self._what.created * 1000),
            new=new,
        )
        # at once: the jobs name their parent
        with self.sweep.edit_summary() as summary:
            summary.mlflow_run_id = remote.run_id
        return remote

    def _advance(self, *, again: bool) -> None:
        """Look at each job once; `again` tries those that could not be sent, however lately that was."""
        if (now := _mtime(self.sweep.manifest)) != self._written:
            self._written, self._what = now, manifest.read(self.sweep)  # a search adds jobs
        self._spent, in_a_row = 0.0, 0
        for job in self._what.jobs:
            if not again and time.monotonic() < self._failed.get(job.n, 0.0):
                continue
            try:
                self._look(job)
                self._failed.pop(job.n, None)
                in_a_row = 0
            except Exception as error:  # whatever a folder, the network or the store has
                self._let_go(job.n)
                in_a_row += 1
                if in_a_row == IN_A_ROW:
                    raise
                self._failed[job.n] = time.monotonic() + RETRY
                self._tell(self.sweep.job(job.n), error)
        if time.monotonic() > self._described + REFRESH:
            self._describe()

    def _look(self, job: Job) -> None:
        """Send what is new of a job, and let go of it once it has ended."""
        if job.n not in self._followed and not self._begin(job):
            return
        upload = self._followed[job.n].upload
        if not ended(upload.run):
            began = time.monotonic()
            upload.advance()
            self._spent += time.monotonic() - began
            return
        upload.finish()
        self._let_go(job.n)
        self._seen[job.n] = _mtime(upload.run.path / "summary.json")

    def _begin(self, job: Job) -> bool:
        """Open the upload of a job of which MLflow lacks something; return whether there is one."""
        changed = _mtime(self.sweep.run(job.n).path / "summary.json")
        if not changed or changed == self._seen.get(job.n):
            return False
        subject = of_job(self.sweep, job)
        if not subject.pending():
            self._seen[job.n] = changed
            return False
        with ExitStack() as lock:
            if not lock.enter_context(only_uploader(subject.home)):
                return False  # it has an uploader of its own
            self._followed[job.n] = Followed(Upload(subject, self._connection), lock.pop_all())
        return True

    def _let_go(self, n: int) -> None:
        followed = self._followed.pop(n, None)
        if followed:
            followed.upload.close()
            followed.lock.close()

    def _describe(self) -> None:
        found = results(self.sweep, self._what)
        note = self._parent.note(sweep_note.note(self.sweep, self._what, found))
        self._parent.send(tags=sweep_note.tags(self.sweep, self._what, found) | note)
        self._described = time.monotonic()

    def _finish(self) -> None:
        """Send what came of the sweep; raises `RuntimeError` if a job is still missing."""
        self.sweep.status()
        sent = stamp_of_sweep(self.sweep, self.sweep.summary())
        self._parent.send(params=sweep_note.params(self._what))
        self._describe()
        if self.sweep.report.is_dir():
            self._parent.send_folder(self.sweep.report, "report")
        status = sweep_note.status(self.sweep, results(self.sweep, self._what))
        self._parent.close(status, round(time.time() * 1000))
        if self._failed:
            raise RuntimeError(f"{len(self._failed)} of {len(self._what.jobs)} jobs could not be sent")
        experiment, what = self._parent.experiment_id, self._what
        charts = pages.of_sweep(experiment, self.sweep.id, monitor=what.monitor, higher_is_better=what.higher_is_better)
        with self.sweep.edit_summary() as summary:
            summary.uploaded, summary.uploaded_stamp = True, sent
            summary.mlflow_url = page(self._connection.uri, charts)


def _mtime(file: Path) -> int:
    """Return when a file was written, in nanoseconds; 0 if there is none."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
