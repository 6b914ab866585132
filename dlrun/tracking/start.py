"""The trainer's side: one process is spawned, and at the end it may be waited for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dlrun
from dlrun.storage.files import wait_until
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.state import only_uploader


@dataclass(frozen=True)
class Uploader:
    """The process that shows a run, or a sweep with its jobs, in MLflow while it is trained."""

    folder: RunDir | SweepDir
    process: subprocess.Popen[bytes]

    def wait(self, seconds: float) -> bool:
        """Wait until all is sent, at most `seconds`; return whether it is. Ctrl-C gives up waiting.

        The final status must be in the summary by then, and a sweep's report in its folder before that.
        """
        try:
            wait_until(lambda: self._sent() or self._gone(), seconds)
        except KeyboardInterrupt:
            return False
        finally:
            _let_go(self.process)
        return self._sent()

    def _sent(self) -> bool:
        return bool(self.folder.summary().uploaded)

    def _gone(self) -> bool:
        if self.process.poll() is None:
            return False
        # another uploader may hold the folder and do the work: this one then ended at once
        with only_uploader(self.folder.path) as free:
            return free


def start(run: RunDir) -> Uploader:
    """Spawn the uploader of a run, after the summary's status was set; a folder has one at a time."""
    with run.edit_summary() as summary:
        summary.uploaded = False
    return Uploader(run, _spawn([run], run.path / "uploader.log"))


def start_sweep(sweep: SweepDir) -> Uploader:
    """Spawn the one uploader of a sweep and all its jobs, after the manifest and the summary's status were written."""
    with sweep.edit_summary() as summary:
        summary.uploaded = False
    return Uploader(sweep, _spawn([sweep], sweep.path / "uploader.log"))


def sync_in_background(folders: Sequence[RunDir | SweepDir], log: Path) -> None:
    """Spawn one process that sends what MLflow lacks of runs and sweeps, one after the other."""
    if folders:
        _let_go(_spawn(folders, log))


def bury(folders: Sequence[RunDir | SweepDir]) -> None:
    """Write the true status into the summaries of those that were killed and that nobody looked at since."""
    for folder in folders:
        if folder.summary().status == "running":
            folder.status()


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Leave a process to itself: it is meant to outlive this one, of which Python would warn."""
    if process.poll() is None:
        process.returncode = 0


def _spawn(folders: Sequence[RunDir | SweepDir], log: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    # MLflow behaves otherwise when it finds itself under pytest
    environment.pop("PYTEST_CURRENT_TEST", None)
    # the current directory is the user's: a module of theirs must not stand in for one of MLflow's
    own = str(Path(dlrun.__file__).parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(p for p in (os.environ.get("PYTHONPATH"), own) if p)
    command = [sys.executable, "-P", "-m", "dlrun.tracking.uploader", *(str(folder.path) for folder in folders)]
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            # a group of its own: Ctrl-C is for the trainer. Why no session of its own: see `give_way`
            process_group=0,
        )
