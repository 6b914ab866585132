"""A way to run a victim: a run, a sweep or a run of two processes, and which of its processes does what."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from tests import processes

STEPS = 1500
SETTINGS = (
    *("+experiment=digits", "trainer.compile=false", "trainer.figures=false", f"trainer.steps={STEPS}"),
    *("trainer.log_every=20", "trainer.evaluate_every=100", "trainer.checkpoint_every=100", "tracking.wait=1"),
)
RUN = ("train", *SETTINGS)
SWEEP = ("train", "-m", *SETTINGS, "seed=range(3)", "hydra.launcher.slots=2", "sweep.figures=false")
TWO = ("train", *SETTINGS, "trainer.devices=2", "trainer.steps=800")
UNTRACKED = "tracking.enabled=false"


class Victim:
    """dlrun in the folder `here`; what it prints is in a file of `logs`, which no fault reaches."""

    def __init__(self, here: Path, logs: Path, environment: Mapping[str, str]) -> None:
        self.here, self.logs = here, logs
        self.environment = dict(environment)

    def start(self, *words: str, before: str = "", server: str = "dlrun") -> processes.Process:
        """Start `dlrun WORDS`; `before` is code that runs in its process first."""
        program = ["-m", "dlrun", *words]
        if before:
            code = f"{before}\nimport sys\nfrom dlrun.cli import main\nsys.exit(main(sys.argv[1:]))"
            program = ["-c", code, *words]
        self.here.mkdir(parents=True, exist_ok=True)  # a power cut takes it too
        log = self.logs / f"{len([*self.logs.glob('*.out')])}.out"
        with log.open("wb") as said:
            return processes.Process(
                [sys.executable, *program], server=server, cwd=self.here, env=self.environment, stdout=said, stderr=said
            )

    def call(self, *words: str, timeout: float = 300) -> int:
        """Run `dlrun WORDS` to its end; returns its exit code."""
        return self.start(*words).wait(timeout)

    def said(self) -> str:
        """Everything that the programs printed."""
        return "\n".join(log.read_text(errors="replace") for log in sorted(self.logs.glob("*.out")))

    @property
    def runs(self) -> list[RunDir]:
        """Single runs that have begun, oldest first."""
        found = [RunDir(path.parent) for path in self.here.glob("outputs/runs/*/*/summary.json")]
        return sorted(found, key=lambda run: run.path.stat().st_mtime)

    @property
    def sweeps(self) -> list[SweepDir]:
        return [SweepDir(path.parent) for path in sorted(self.here.glob("outputs/sweeps/*/*/manifest.json"))]

    @property
    def jobs(self) -> list[RunDir]:
        """All runs and jobs that have begun."""
        return self.runs + [RunDir(path.parent) for path in sorted(self.here.glob("outputs/sweeps/*/*/*/summary.json"))]

    def processes(self) -> list[psutil.Process]:
        """All live processes in the folder, or with it in their command."""
        return [process for process in psutil.process_iter() if self._is_here(process)]

    def _is_here(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            return Path(process.cwd()).is_relative_to(self.here) or str(self.here) in " ".join(process.cmdline())
        return False

    def roles(self, main: processes.Process) -> dict[str, list[psutil.Process]]:
        """The live processes by what they do; `main` is the one that was started."""
        found: dict[str, list[psutil.Process]] = {"main": []}
        for process in self.processes():
            with suppress(psutil.Error):
                found.setdefault(_role(process, main.pid), []).append(process)
        return found


def _role(process: psutil.Process, main: int) -> str:
    command = " ".join(process.cmdline())
    if process.pid == main:
        return "main"
    if "dlrun.tracking.uploader" in command:
        return "uploader"
    if "forkserver" in command:
        return "server" if process.ppid() == main else "job"
    if "-m dlrun" in command:
        return f"rank {process.environ().get('RANK', '?')}"
    return "other"


class Wholes:
    """Runs and sweeps that nothing has happened to, made when they are first asked for."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def _victim(self, name: str, words: tuple[str, ...], *more: str) -> Victim:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("DLRUN_OUT", "MLFLOW"))
        }
        logs = self._place / f"{name}-logs"
        victim = Victim(self._place / name, logs, environment | {"DLRUN_CACHE": str(self._place / "cache")})
        if not logs.exists():
            logs.mkdir()
            assert victim.call(*words, UNTRACKED, *more) == 0, victim.said()
        return victim

    def run(self, words: tuple[str, ...] = RUN) -> RunDir:
        """The whole run of a command; with figures and clocks or without, it is the same."""
        name = "two" if "trainer.devices=2" in words else "run"
        return self._victim(name, words).runs[0]

    def jobs(self) -> list[RunDir]:
        """The jobs of the whole sweep."""
        return self._victim("sweep", SWEEP).jobs
