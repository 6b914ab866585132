"""The trainer's side: spawn one uploader a tracker, and perhaps wait for them at the end."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dlrun.errors import DamagedFile
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal import output
from dlrun.tracking import program
from dlrun.tracking.content.state import has_uploader
from dlrun.tracking.pending import is_itself_pending
from dlrun.tracking.trackers import TRACKERS, trackers_of

PROGRAM = "dlrun.tracking.uploader"
LOG = "uploader.log"
MODEL_LOADER = "dlrun.runs.export.for_trackers:load_model"
"""What the uploader loads models with. Named, not imported: this room knows no models."""


@dataclass(frozen=True)
class Uploader:
    """The processes of a run's or sweep's uploaders, by tracker; `refused` has why others could not be started."""

    folder: RunDir | SweepDir
    processes: Mapping[str, subprocess.Popen[bytes]]
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def trackers(self) -> list[str]:
        return [*self.processes, *self.refused]

    @property
    def destination(self) -> str:
        """The trackers in words: `MLflow and TensorBoard`."""
        return " and ".join(TRACKERS[name].title for name in self.trackers)

    def wait(self, seconds: float) -> bool:
        """Wait at most `seconds`; returns whether all is sent.

        The final status must be in the summary by then, and a sweep's report in its folder before that. Ctrl-C ends
        the waiting.
        """
        try:
            wait_until(lambda: all(self._sent(name) or self._gone(name) for name in self.trackers), seconds)
        except KeyboardInterrupt:
            return False
        finally:
            for process in self.processes.values():
                _detach(process)
        return all(map(self._sent, self.trackers))

    def describe_rest(self) -> list[str]:
        """Lines for a person: what becomes of the rest after `wait`."""
        lacking = [name for name in self.trackers if not self._sent(name)]
        titles = " and ".join(TRACKERS[name].title for name in lacking)
        if not lacking or any(has_uploader(self.folder.path, name) for name in lacking):
            goes_on = f"{titles or self.destination} lacks some of it yet: an uploader goes on by itself."
            return [goes_on, f"If it does not succeed, type `dlrun sync {self.folder.id}`."]
        why = self.refused.get(lacking[0]) or _last_line(self.folder.path / LOG) or f"see {self.folder.path / LOG}"
        return [f"{titles} lacks some of it: {why}", f"Type `dlrun sync {self.folder.id}` once that is mended."]

    def _sent(self, tracker: str) -> bool:
        # an uploader of before a resumption may have recorded less than is there now
        return not is_itself_pending(self.folder, TRACKERS[tracker])

    def _gone(self, tracker: str) -> bool:
        if tracker in self.processes and self.processes[tracker].poll() is None:
            return False
        # another uploader may hold the folder and do the work: this one then ended at once
        return not has_uploader(self.folder.path, tracker)


def start(folder: RunDir | SweepDir) -> Uploader:
    """Spawn an uploader for each tracker of the folder.

    The status, and a sweep's manifest, must be in the folder. A second uploader of a folder and tracker ends at once.
    One that the system refuses to start is a warning: no training fails because of a tracker.
    """
    trackers = [tracker.name for tracker in trackers_of(folder)]
    with folder.edit_summary() as summary:
        summary.uploaded = dict.fromkeys(trackers, False)
    processes, refused = {}, {}
    for name in trackers:
        try:
            processes[name] = _spawn(name, [folder], folder.path / LOG)
        except OSError as error:  # too many processes, no memory, a log of somebody else
            refused[name] = f"its uploader could not be started ({error})"
            output.warn(f"Nothing is sent to {TRACKERS[name].title} now: {refused[name]}.")
    if refused:
        output.warn(f"Type `dlrun sync {folder.id}` later.")
    return Uploader(folder, processes, refused)


def sync_in_background(lacking: Mapping[str, Sequence[RunDir | SweepDir]], log: Path) -> None:
    """Send idle runs and sweeps, one process a tracker."""
    for tracker, folders in lacking.items():
        try:
            _detach(_spawn(tracker, folders, log))
        except OSError as error:
            output.warn(f"They cannot be sent now ({error}): type `dlrun sync` later.")


def mark_killed(folders: Sequence[RunDir | SweepDir]) -> None:
    """Correct the status of killed runs and sweeps."""
    for folder in folders:
        if folder.summary().status == "running":
            with suppress(PermissionError, DamagedFile):  # a folder of somebody else; told when it is sent
                folder.status()  # it writes `killed` if nobody works there


def _last_line(log: Path) -> str:
    """The last message of an uploader, without the time, the folder's id and the exception's name before it."""
    with suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return re.sub(r"^\S+ \S+: (?:\w+: )?", "", lines[-1]) if lines else ""
    return ""


def _detach(process: subprocess.Popen[bytes]) -> None:
    # it is meant to outlive this process, and Python would warn of that
    if process.poll() is None:
        process.returncode = 0


def _spawn(tracker: str, folders: Sequence[RunDir | SweepDir], log: Path) -> subprocess.Popen[bytes]:
    # a thread a core, as some libraries start, would take the trainer's time
    environment = program.environment(OMP_NUM_THREADS="1")
    # MLflow behaves otherwise when it finds itself under pytest
    environment.pop("PYTEST_CURRENT_TEST", None)
    options = ["--tracker", tracker, "--model-loader", MODEL_LOADER]
    with log.open("ab") as output:
        return subprocess.Popen(
            program.command(PROGRAM, *options, *(str(folder.path) for folder in folders)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            # a group of its own: Ctrl-C is for the trainer. Why no session of its own: see `give_way`
            process_group=0,
        )
