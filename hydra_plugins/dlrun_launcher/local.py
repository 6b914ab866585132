"""The launcher `local`: a process a job, in slots of GPUs or cores. Thin, for every start of Hydra imports it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

    from dlrun.sweeps.plugins import JobRunner
    from dlrun.sweeps.store import SweepStore

# no dataclass, for Hydra executes this file before it is a module; no yaml beside it, which Hydra would warn about
KEYS = {
    "_target_": "hydra_plugins.dlrun_launcher.local.LocalLauncher",
    "slots": None,  # jobs at once: as many as the GPUs take, else as many as there are cores
    "jobs_per_gpu": 1,  # a GPU's place belongs to one job on the whole machine
    "threads": None,  # CPU threads a job: the cores shared out
    "on_failure": "continue",  # or stop: start no further job after one that failed
}
ConfigStore.instance().store(group="hydra/launcher", name="local", node=KEYS, provider="dlrun")


class LocalLauncher(Launcher):
    """Runs each job in a process of its own.

    The jobs are those of any Hydra app, or of a sweep of dlrun (`job_runner`).
    """

    def __init__(
        self,
        slots: int | None = None,
        jobs_per_gpu: int = 1,
        threads: int | None = None,
        on_failure: str = "continue",
    ) -> None:
        self.slots = slots
        self.jobs_per_gpu = jobs_per_gpu
        self.threads = threads
        self.on_failure = on_failure

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives a launcher."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; returns their results in the same order."""
        # a `SweepTask`, whose class is not imported for other apps: it needs torch
        run_jobs = getattr(self.task_function, "run_jobs", None)
        if run_jobs is not None:
            returns: Sequence[JobReturn] = run_jobs(self, job_overrides, initial_job_idx)
            return returns
        from dlrun.sweeps.pool import any_hydra_app

        return any_hydra_app.launch(self, job_overrides, initial_job_idx)

    @staticmethod
    def job_runner(store: SweepStore, hydra: DictConfig) -> JobRunner:
        from dlrun.sweeps.pool_runner import PoolRunner

        return PoolRunner(store, hydra.launcher)
