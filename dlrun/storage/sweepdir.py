"""The folder of a sweep: its manifest, its jobs, its report, and the lock of whoever conducts it.

    outputs/sweeps/<date>/<time>-<name>-<id>/
        manifest.json  summary.json  sweep.log  <n>/ (each a run folder)  report/

What the folder says about itself works as in a run's: `summary.json` is replaced under a lock, and a
sweep that says `running` without a holder was killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlrun.errors import UserError
from dlrun.storage import rundir
from dlrun.storage.rundir import REUSED, RunDir, Status, outputs, write_atomically


@dataclass(frozen=True)
class SweepDir:
    """The files of one sweep."""

    path: Path

    @property
    def id(self) -> str:
        """Return the random id that the folder's name ends with."""
        return rundir.ending(self.path)

    @property
    def manifest(self) -> Path:
        """Return the file that says what the sweep is: written before its first job starts."""
        return self.path / "manifest.json"

    @property
    def report(self) -> Path:
        """Return the folder of the report: pages, tables, figures."""
        return self.path / "report"

    @property
    def log(self) -> Path:
        """Return what the sweep printed."""
        return self.path / "sweep.log"

    def job(self, n: int) -> RunDir:
        """Return the folder of job `n`, as it would be made here."""
        return RunDir(self.path / str(n))

    def run(self, n: int) -> RunDir:
        """Return the run that stands for job `n`: that of another sweep, if it was reused and is still there."""
        return rundir.standing_for(self.path / str(n))

    def reuse(self, n: int, run: RunDir) -> None:
        """Have `run` stand for job `n`."""
        folder = self.path / str(n)
        folder.mkdir(exist_ok=True)
        write_atomically(folder / REUSED, json.dumps({"run": str(run.path)}).encode())

    def held(self) -> AbstractContextManager[None]:
        """Hold the sweep while it is conducted; raises `UserError` if another process does."""
        return rundir.hold(self.path, busy=f"{self.path} is in use: another process is conducting this sweep.")

    def alive(self) -> bool:
        """Return whether a process is conducting the sweep now."""
        return rundir.is_held(self.path)

    def summary(self) -> dict[str, Any]:
        """Return the summary as it lies in the folder (empty before there is one)."""
        return rundir.read_summary(self.path)

    def update(self, change: Callable[[dict[str, Any]], None] | None = None, **values: Any) -> dict[str, Any]:
        """Change the summary under its lock; return what it says now."""
        return rundir.update_summary(self.path, change, **values)

    def status(self) -> Status:
        """Return the true status; a sweep that says `running` and is not alive becomes `killed`."""
        return rundir.true_status(self.path)


def all_sweeps() -> list[SweepDir]:
    """Return every sweep under the outputs folder that has a manifest, oldest first."""
    return [SweepDir(p.parent) for p in sorted(outputs().glob("sweeps/*/*/manifest.json"))]


def sweep_of(run: RunDir) -> SweepDir | None:
    """Return the sweep that a run is a job of."""
    return SweepDir(run.path.parent) if run.of_a_sweep else None


def find_sweep(reference: str) -> SweepDir | None:
    """Return the sweep that `reference` names, a folder or the beginning of its id; None if it names none.

    Raises `UserError` if several fit.
    """
    folder = Path(reference)
    if (folder / "manifest.json").is_file():
        return SweepDir(folder.absolute())
    fitting = [sweep for sweep in all_sweeps() if reference and sweep.id.startswith(reference)]
    if len(fitting) > 1:
        names = "\n  ".join(str(sweep.path) for sweep in fitting)
        raise UserError(f"`{reference}` fits {len(fitting)} sweeps:\n  {names}\nGive more of the id, or the folder.")
    return fitting[0] if fitting else None
