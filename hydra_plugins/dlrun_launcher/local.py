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
    """Runs each job in a process of its own; a task with a method `conduct_sweep` does so itself."""

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
        """Take what Hydra gives a launcher."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return what came of them, in their order."""
        from dlrun.sweeps.pool import any_hydra_app

        own = getattr(self.task_function, "conduct_sweep", None)
        if own is not None:
            returns: Sequence[JobReturn] = own(self, job_overrides, initial_job_idx)
            return returns
        return any_hydra_app.launch(self, job_overrides, initial_job_idx)
