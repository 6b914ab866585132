"""SLURM, and processes of this machine in its place, by submitit."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from omegaconf import DictConfig, OmegaConf

from dlrun.errors import ConfigError, MissingModule, UserError
from dlrun.sweeps.cluster.executor import Submitted
from dlrun.sweeps.pool.slots import cores

if TYPE_CHECKING:
    import submitit

REFRESH = 3.0
"""Seconds between two questions to SLURM: sites ask users not to ask it all the time."""

OURS = ("_target_", "on_failure", "detach", "cluster", "submitit_folder", "max_num_timeout")
"""Keys of the launcher that are no parameters of submitit's executor."""

SHARED = (
    *("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node"),
    *("mem_gb", "nodes", "name", "stderr_to_stdout"),
)
"""Parameters that submitit has for all clusters; the others are named `slurm_…` there."""

PROGRAM = "submitit.local._local"


class SlurmExecutor:
    """Submits by submitit, all tasks of a call as one array."""

    survives = True

    def __init__(self, launcher: DictConfig, folder: Path) -> None:
        settings = _settings(launcher)
        self._local = settings["cluster"] == "local"
        self.name = "slurm" if not self._local else "submitit's local executor"
        self.width = int(settings.get("array_parallelism") or 256)
        # submitit's local executor starts all that it is given
        self.queues = not self._local
        if self._local:
            self.width = min(self.width, cores())
        self._executor = _executor(settings, folder, local=self._local)
        self._queue = _Queue()

    def submit(self, calls: Sequence[Callable[[], None]]) -> list[Submitted]:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            # as an array: one request to SLURM, which runs `array_parallelism` of them at once
            with self._executor.batch():
                jobs = [self._executor.submit(call) for call in calls]
        except (FailedJobError, FailedSubmissionError) as error:
            # sbatch's last line says why
            said = (str(error).strip() or str(error.__cause__)).splitlines()[-1]
            raise UserError(f"SLURM has refused the jobs: {said}") from error
        return [_LocalTask(job.job_id) if self._local else self._queue.task(job.job_id) for job in jobs]

    def find(self, id: str) -> Submitted | None:
        return _LocalTask(id) if self._local else self._queue.task(id)


def check(launcher: DictConfig) -> None:
    """Raise `UserError` for settings that submitit or this machine refuse."""
    settings = _settings(launcher)
    with tempfile.TemporaryDirectory() as folder:
        _executor({**settings, "submitit_folder": None}, Path(folder), local=settings["cluster"] == "local")


def _settings(launcher: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(launcher, resolve=True)
    assert isinstance(plain, dict)
    found = {str(key): value for key, value in plain.items()}
    if (cluster := found.setdefault("cluster", "slurm")) not in ("slurm", "local"):
        raise ConfigError(f"hydra.launcher.cluster={cluster}: it is slurm, or local for processes of this machine.")
    return found


def _executor(settings: Mapping[str, Any], folder: Path, *, local: bool) -> submitit.AutoExecutor:
    try:
        import submitit
    except ImportError:
        raise MissingModule("hydra/launcher=slurm needs submitit. Type: pip install 'dlrun[slurm]'") from None
    place = Path(str(settings.get("submitit_folder") or folder / ".submitit" / "%j"))
    retries = int(settings.get("max_num_timeout") or 0)
    try:
        executor = submitit.AutoExecutor(
            folder=place, cluster="local" if local else "slurm", **{_prefixed("max_num_timeout", local): retries}
        )
    except RuntimeError as error:
        raise UserError(f"{error} hydra.launcher.cluster=local tries the same on this machine.") from None
    given = {key: value for key, value in settings.items() if key not in OURS and value is not None}
    if local:
        # submitit's local executor has no others
        given = {key: value for key, value in given.items() if key in (*SHARED, "setup")}
    try:
        executor.update_parameters(**{_prefixed(key, local): value for key, value in given.items()})
    except (AssertionError, NameError, ValueError, TypeError) as error:
        raise UserError(f"hydra.launcher: {' '.join(str(error).split())}") from None
    return executor


def _prefixed(key: str, local: bool) -> str:
    return key if key in SHARED else f"{'local' if local else 'slurm'}_{key}"


class _Queue:
    """What `squeue` says of this user's tasks, asked for once in `REFRESH` seconds.

    Not `sacct`, which many clusters have not set up.
    """

    def __init__(self) -> None:
        self._asked = float("-inf")
        self._states: dict[str, str] | None = {}

    def task(self, id: str) -> _SlurmTask:
        return _SlurmTask(self, id, time.monotonic())

    def state(self, id: str, since: float) -> str | None:
        """The state of a task; None if it is over. Of a queue that cannot be asked it is `UNKNOWN`."""
        if time.monotonic() > self._asked + REFRESH or since > self._asked:
            began = time.monotonic()
            self._states, self._asked = _ask(), began
        return "UNKNOWN" if self._states is None else self._states.get(id)


class _SlurmTask:
    def __init__(self, queue: _Queue, id: str, since: float) -> None:
        self._queue, self.id, self._since = queue, id, since

    def lives(self) -> bool:
        return self._queue.state(self.id, self._since) is not None

    def why(self) -> str:
        """The state at SLURM's end, as far as it remembers it."""
        shown = _output("scontrol", "show", "job", "-o", self.id) or ""
        fields = dict(word.partition("=")[::2] for word in shown.split() if "=" in word)
        state = fields.get("JobState", "")
        return f"ended by SLURM: {state} (job {self.id})" if state else f"ended without an answer (job {self.id})"

    def withdraw(self) -> bool:
        if self._queue.state(self.id, self._since) != "PENDING":
            return False
        # a task that has started meanwhile is not hit
        _output("scancel", "--state=PENDING", self.id)
        self._since = time.monotonic()
        return self._queue.state(self.id, self._since) is None

    def kill(self) -> None:
        _output("scancel", self.id)


class _LocalTask:
    def __init__(self, id: str) -> None:
        self.id = id

    def lives(self) -> bool:
        return self._process() is not None

    def why(self) -> str:
        return f"ended without an answer (process {self.id})"

    def withdraw(self) -> bool:
        return False

    def kill(self) -> None:
        if (process := self._process()) is not None:
            for child in [*process.children(recursive=True), process]:
                child.kill()

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(int(self.id))
            # another process may have the number by now
            ours = process.status() != psutil.STATUS_ZOMBIE and any(PROGRAM in word for word in process.cmdline())
        except (psutil.Error, ValueError):
            return None
        return process if ours else None


def _ask() -> dict[str, str] | None:
    shown = _output("squeue", "--noheader", "--array", "--me", "--format=%i|%T")
    if shown is None:
        return None
    return dict(line.strip().partition("|")[::2] for line in shown.splitlines() if "|" in line)


def _output(*command: str) -> str | None:
    """What a command prints; None if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
