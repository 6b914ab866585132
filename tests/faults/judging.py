"""A way to judge: is the status true in time, is nobody left, is the resumed run the whole one, has MLflow it once?"""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from dlrun.errors import DamagedFile
from dlrun.runs.differences import TIMED, differences
from dlrun.storage import checkpoint, journal
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import FolderSummary, read
from dlrun.tracking.mlflow.names.metrics import metric_name
from tests import processes
from tests.faults import matrix
from tests.faults.stored import Stored, local
from tests.faults.victims import RUN, Victim, Wholes

WITHIN = 30.0
"""Seconds in which the status has to be true."""
SOON = 15.0
"""Seconds in which those that are left by a kill have to end: they finish a step and save."""
ENDS = 120.0
"""Seconds after which a process that has been told to end hangs."""
NOBODY = "\0"
UPLOADER = "dlrun.tracking.uploader"
IN_MLFLOW = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED", "pruned": "KILLED"}


@dataclass
class Verdict:
    """What a try came to."""

    seconds: float | None = None
    orphans: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        late = self.seconds is not None and self.seconds > WITHIN
        return not (late or self.orphans or self.differences or self.wrong)


class Trial:
    """One try: a folder, chance, victims, and the verdict."""

    def __init__(
        self, place: Path, cache: Path, wholes: Wholes, chance: random.Random, record: matrix.RecordProperty
    ) -> None:
        self.place, self.cache, self.wholes, self.chance = place, cache, wholes, chance
        self.verdict, self.stack = Verdict(), ExitStack()
        self.store: Stored = local
        self._record = record
        self.victim = self.lay(place / "lab")

    def lay(self, here: Path, **environment: str) -> Victim:
        """The victim of this try, in `here`."""
        logs = self.place / "logs"
        logs.mkdir(exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DLRUN_OUT", "MLFLOW"))}
        self.victim = Victim(here, logs, kept | {"DLRUN_CACHE": str(self.cache)} | environment)
        return self.victim

    def begun(self, main: processes.Process, *, of: Callable[[], object] | None = None) -> None:
        """Wait until a run is being trained, or the process has ended."""
        there = of or (lambda: any(run.journal.exists() for run in self.victim.jobs))
        assert wait_until(lambda: bool(there()) or main.poll() is not None, ENDS, poll=0.005), self.victim.said()

    def moment(self, seconds: float) -> None:
        """Wait for a random part of so many seconds."""
        time.sleep(self.chance.uniform(0, seconds))

    def check(self, right: bool, otherwise: str) -> bool:
        if not right:
            self.verdict.wrong.append(otherwise)
        return right

    def ends(self, main: processes.Process, *codes: int, seconds: float = ENDS) -> int:
        """Wait for the end; the exit code is one of `codes`."""
        try:
            code = main.wait(seconds)
        except subprocess.TimeoutExpired:
            self.check(False, f"it does not end in {seconds:.0f} s")
            main.kill()
            return main.wait(ENDS)
        self.check(code in codes, f"exit {code}, expected {codes}: {self.victim.said()[-300:]!r}")
        return code

    def true_in_time(self, since: float) -> None:
        """Measure until each run's status is the same in its folder and in MLflow, and it is not `running`.

        Where no uploader lives, `dlrun sync` is typed at once, as a person would.
        """
        uploaders = [each for each in self.victim.processes() if UPLOADER in " ".join(_command(each))]
        if not uploaders:
            self.victim.call("sync")
        for each in uploaders:
            _let_run(each)
        wait_until(lambda: all(map(self._told, self.victim.jobs)), 2 * WITHIN)
        self.verdict.seconds = time.monotonic() - since
        for run in self.victim.jobs:
            self.check(self._told(run), f"{run.id}: {_status(run)}, in MLflow {self.store.status(run)}")

    def _told(self, run: RunDir) -> bool:
        status = _status(run)
        return status in IN_MLFLOW and self.store.status(run) == IN_MLFLOW[status]

    def alone(self, *, but: str = NOBODY) -> None:
        """Nobody is left in time, `but` those with this in their command."""

        def left() -> list[str]:
            commands = {each.pid: " ".join(_command(each)) for each in self.victim.processes()}
            return [f"{pid} {command[-120:]}" for pid, command in commands.items() if but not in command]

        wait_until(lambda: not left(), WITHIN if but == NOBODY else SOON, poll=0.2)
        self.verdict.orphans += left()

    def resumed(self, words: Sequence[str] = RUN, *, jobs: bool = False) -> None:
        """Resume what has not finished; then all is that of a whole run, bit for bit."""
        folders = self.victim.sweeps if jobs else self.victim.runs
        for folder in folders:
            if _status(folder) != "finished":
                code = self.victim.call("resume", *(["--retry-failed"] if jobs else []), str(folder.path))
                self.check(code == 0, f"resume: exit {code}: {self.victim.said()[-300:]!r}")
        expected = self.wholes.jobs() if jobs else [self.wholes.run(tuple(words))] * len(folders)
        found = self.victim.jobs
        if self.check(len(found) == len(expected), f"{len(found)} runs, expected {len(expected)}"):
            for run, whole in zip(found, expected, strict=True):
                try:
                    self.verdict.differences += differences(run, whole)
                except (DamagedFile, OSError) as error:
                    self.check(False, f"cannot be compared: {error}")
                # a read is counted before it is made: one that was struck is repeated, and counts
                reads, once = run.summary().test_reads, whole.summary().test_reads
                self.check(reads in (once, once + 1), f"{run.id}: {reads} reads of the test split")

    def stored_once(self) -> None:
        """MLflow has each run once, finished, with each point of its journal once."""
        wait_until(lambda: not self.victim.processes(), WITHIN, poll=0.2)
        code = self.victim.call("sync")
        self.check(code == 0, f"sync: exit {code}: {self.victim.said()[-300:]!r}")
        for run in self.victim.jobs:
            self.check(self.store.status(run) == "FINISHED", f"{run.id}: in MLflow {self.store.status(run)}")
            points = self.store.points(run)
            logged = {
                (metric_name(name), step): None if name.startswith(TIMED) else value
                for name, curve in journal.curves(run.journal).items()
                for step, value in curve
            }
            many = [at for at, number in Counter((name, step) for name, step, _ in points).items() if number > 1]
            values = {(name, step): value for name, step, value in points}
            lacking = [at for at, value in logged.items() if at not in values or value not in (None, values[at])]
            self.check(not lacking, f"MLflow lacks {len(lacking)} of {len(logged)} points: {lacking[:3]}")
            self.check(not many, f"MLflow has {len(many)} points more than once: {many[:3]}")

    def checkpoints(self) -> dict[Path, int]:
        """The step of each run's last checkpoint."""
        return {run.last: checkpoint.load(run.last).step for run in self.victim.jobs if run.last.exists()}

    def kept(self, before: dict[Path, int]) -> None:
        """The checkpoints of before the fault, or later ones, are there and whole."""
        for path, step in before.items():
            try:
                self.check(checkpoint.load(path).step >= step, f"{path.name} is of before step {step}")
            except (DamagedFile, OSError) as error:
                self.check(False, f"the checkpoint of step {step} is gone: {error}")

    def conclude(self) -> None:
        """Record the verdict; fail unless it is right."""
        said = self.victim.said()
        if found := re.search(r"Traceback \(most recent call last\)[\s\S]*?\n(\w\S*.*)", said):
            self.check(False, f"a traceback: {found[1]}")
        self._record(matrix.VERDICT, asdict(self.verdict) | {"right": self.verdict.right})
        assert self.verdict.right, f"{self.verdict}\n{said[-3000:]}"

    def clean(self) -> None:
        """Leave nothing behind."""
        for process in self.victim.processes():
            with suppress(psutil.Error):
                process.kill()
        self.stack.close()


def _status(folder: object) -> str:
    # as the file has it: `RunDir.status` would correct it
    with suppress(DamagedFile):
        return read(folder.path, FolderSummary).status  # type: ignore[attr-defined]
    return "damaged"


def _let_run(process: psutil.Process) -> None:
    # an uploader that has not got to it takes the ordinary priority once its run has ended; beside other programs
    # that keep the processors busy it might not get to it
    with suppress(psutil.Error, OSError):
        for thread in process.threads():
            os.sched_setscheduler(thread.id, os.SCHED_OTHER, os.sched_param(0))


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
