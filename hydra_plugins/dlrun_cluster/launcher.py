"""A launcher of sweeps of dlrun alone. Thin, for every start of Hydra imports it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn


class ClusterLauncher(Launcher):
    """Hands the jobs to the sweep, which runs them by the launcher's `job_runner`."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives a launcher."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; returns their results in the same order."""
        run_jobs = getattr(self.task_function, "run_jobs", None)
        if run_jobs is None:
            raise TypeError(
                "This launcher runs the sweeps of dlrun. For another Hydra app install hydra-submitit-launcher or "
                "hydra-ray-launcher."
            )
        returns: Sequence[JobReturn] = run_jobs(self, job_overrides, initial_job_idx)
        return returns
