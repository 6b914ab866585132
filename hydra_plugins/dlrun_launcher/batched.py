"""The launcher `batched`: small runs as one program. Thin, for every start of Hydra imports it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn


# those of `local`, for the jobs that get processes of their own, and one more
KEYS = {
    "_target_": "hydra_plugins.dlrun_launcher.batched.BatchedLauncher",
    "slots": None,
    "jobs_per_gpu": 1,
    "threads": None,
    "on_failure": "continue",
    "verify": 0,  # jobs that are trained alone too, and compared
}
ConfigStore.instance().store(group="hydra/launcher", name="batched", node=KEYS, provider="dlrun")


class BatchedLauncher(Launcher):
    """Has dlrun run what is small in its own process; the jobs of another program it runs as `local` does."""

    def __init__(
        self,
        slots: int | None = None,
        jobs_per_gpu: int = 1,
        threads: int | None = None,
        on_failure: str = "continue",
        verify: int = 0,
    ) -> None:
        self.slots = slots
        self.jobs_per_gpu = jobs_per_gpu
        self.threads = threads
        self.on_failure = on_failure
        self.verify = verify

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives a launcher."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs and return what came of them, in their order."""
        from dlrun.sweep import foreign

        own = getattr(self.task_function, "conduct_sweep", None)
        if own is not None:
            returns: Sequence[JobReturn] = own(self, job_overrides, initial_job_idx)
            return returns
        return foreign.launch(self, job_overrides, initial_job_idx)
