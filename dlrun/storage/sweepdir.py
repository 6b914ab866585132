"""The folder of a sweep: its manifest, its jobs, its report, and the lock of its launcher.

    outputs/sweeps/<date>/<time>-<name>-<id>/
        manifest.json  added.jsonl  summary.json  sweep.log  <n>/ (each a run folder)  report/

Lock, summary and status work as in a run's folder.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from dlrun.storage import summary
from dlrun.storage.files import locks
from dlrun.storage.rundir import RunDir, follow_reuse, id_of, write_reused
from dlrun.storage.summary import Status
from dlrun.storage.sweep_summary import SweepSummary


@dataclass(frozen=True)
class SweepDir:
    """The files of one sweep."""

    path: Path

    @property
    def id(self) -> str:
        """The random id at the end of the folder's name."""
        return id_of(self.path)

    @property
    def manifest(self) -> Path:
        """The jobs, written before the first of them starts."""
        return self.path / "manifest.json"

    @property
    def added(self) -> Path:
        """The jobs that a search has added to those of the manifest, one a line."""
        return self.path / "added.jsonl"

    @property
    def report(self) -> Path:
        """The folder of pages, tables and figures."""
        return self.path / "report"

    @property
    def log(self) -> Path:
        """Everything that the sweep printed."""
        return self.path / "sweep.log"

    def job(self, n: int) -> RunDir:
        """The folder of job `n`, reused or not."""
        return RunDir(self.path / str(n))

    def run(self, n: int, identity: str | None = None) -> RunDir:
        """The run of job `n`.

        Of a reused job it is another sweep's, if that is still there and has the job's `identity`.
        """
        return follow_reuse(self.path / str(n), identity)

    def reuse(self, n: int, run: RunDir) -> None:
        """Let another sweep's `run` stand for job `n`."""
        write_reused(self.path / str(n), run)

    def hold(self) -> AbstractContextManager[None]:
        """Hold the folder while running its jobs.

        Raises `UserError` if another process does.
        """
        return locks.hold(self.path, busy=f"{self.path} is in use: another process runs this sweep.")

    def alive(self) -> bool:
        """True while a process runs the sweep's jobs."""
        return locks.is_held(self.path)

    def summary(self) -> SweepSummary:
        """The summary; without any key before the sweep has begun."""
        return summary.read(self.path, SweepSummary)

    def edit_summary(self) -> AbstractContextManager[SweepSummary]:
        """Change the summary under its lock.

        Use it as `with sweep.edit_summary() as summary: …`.
        """
        return summary.edit(self.path, SweepSummary)

    def status(self) -> Status:
        """The true status: a dead `running` sweep becomes `killed`."""
        return summary.true_status(self.path)
