"""A sweep's folder while it runs: what was decided, what came of it so far, and its status."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from dlrun import tracking
from dlrun.errors import DamagedFile
from dlrun.storage import manifest, run_config
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.jobs.job import Job
from dlrun.storage.manifest import Manifest
from dlrun.storage.read_counts import note_reads
from dlrun.storage.results import Result, results
from dlrun.storage.rundir import REUSED, lost_reuse
from dlrun.storage.summary import Status
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.pool.task import GRACE
from dlrun.terminal import output
from dlrun.terminal.format import counted


class SweepStore:
    """A running sweep's folder and manifest."""

    def __init__(self, sweep: SweepDir, manifest: Manifest) -> None:
        self.sweep = sweep
        self.manifest = manifest
        # the clock of the wall may be set meanwhile
        self._began = time.monotonic()

    @property
    def unsent(self) -> dict[str, bool] | None:
        """The trackers to send to; None without tracking."""
        return tracking.unsent(job.config for job in self.manifest.jobs)

    def open(self) -> None:
        """Mark the sweep as `running`, and give up reused runs that are gone or changed."""
        # before jobs run again whose folders are gone
        note_reads(self.sweep)
        self._leave_lost()
        with self.sweep.edit_summary() as summary:
            summary.status, summary.error = "running", None
            summary.name, summary.command = self.manifest.name, self.manifest.command
            # a resumed sweep keeps its first start
            summary.started = summary.started or self.manifest.created
            summary.uploaded = self.unsent

    def close(self, status: Status, error: str | None = None) -> None:
        """Write the final status, and add this process's seconds."""
        with self.sweep.edit_summary() as summary:
            summary.status, summary.error = status, error
            # the summary has those of earlier processes already
            summary.seconds = round(summary.seconds + time.monotonic() - self._began, 3)

    def extend(self, jobs: Sequence[Job]) -> None:
        """Add further jobs to the folder's."""
        kept = [replace(job, config=run_config.placed(job.config, self.sweep.job(job.n).path)) for job in jobs]
        manifest.add(self.sweep, kept)
        self.manifest = self.manifest.extended(kept)

    def fold(self) -> None:
        """Put the added jobs into the manifest."""
        if self.sweep.added.exists():
            self.manifest.write(self.sweep)

    def results(self) -> list[Result]:
        """All jobs with their runs, in order."""
        return results(self.sweep, self.manifest)

    def result(self, job: Job) -> Result:
        """One job with its run."""
        return results(self.sweep, replace(self.manifest, jobs=(job,)))[0]

    def due(self, *, retry_failed: bool = False, going: Collection[int] = ()) -> list[Job]:
        """The jobs to start or resume, and those that are `going` at a scheduler."""
        again = ("missing", "killed", "failed") if retry_failed else ("missing", "killed")
        self._wait_for_orphans(going)
        return [result.job for result in self.results() if result.status in again or result.job.n in going]

    def _leave_lost(self) -> None:
        lost = {}
        for job in self.manifest.jobs:
            folder = self.sweep.job(job.n).path
            with suppress(DamagedFile):  # the job's status says so
                if reason := lost_reuse(folder, job.identity):
                    lost[job.n] = reason
                    # else a run here would be left again for that one, if it came back
                    (folder / REUSED).unlink()
        if lost:
            first = f"job {next(iter(lost))}: {next(iter(lost.values()))}"
            more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
            verb = "is" if len(lost) == 1 else "are"
            output.say(f"{len(lost)} of {counted(len(self.manifest.jobs), 'job')} {verb} run here: {first}{more}")

    def _wait_for_orphans(self, going: Collection[int]) -> None:
        # the jobs of a launcher that was killed save and end by themselves, at the latest after GRACE seconds
        folders = [self.sweep.job(job.n) for job in self.manifest.jobs if job.n not in going]
        if any(folder.alive() for folder in folders):
            output.say("waiting for the jobs of the launcher that was killed: they save and end")
            wait_until(lambda: not any(folder.alive() for folder in folders), GRACE + 5)
