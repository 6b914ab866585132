"""The launcher `batched`: small runs as one program. Thin, for every start of Hydra imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from hydra_plugins.dlrun_launcher import local

if TYPE_CHECKING:
    from dlrun.sweeps.plugins import JobRunner
    from dlrun.sweeps.store import SweepStore

# the settings of `local`, for the jobs that get processes of their own, and one more
KEYS = local.KEYS | {
    "_target_": "hydra_plugins.dlrun_launcher.batched.BatchedLauncher",
    "verify": 0,  # jobs that are trained alone too, and compared
}
ConfigStore.instance().store(group="hydra/launcher", name="batched", node=KEYS, provider="dlrun")


class BatchedLauncher(local.LocalLauncher):
    """Stacks jobs of dlrun; runs others as `local` does.

    Short jobs of dlrun run in the launcher's own process.
    """

    def __init__(self, verify: int = 0, **of_local: Any) -> None:
        super().__init__(**of_local)
        self.verify = verify

    @staticmethod
    def job_runner(store: SweepStore, hydra: DictConfig) -> JobRunner:
        from dlrun.sweeps.batched.runner import BatchedRunner

        return BatchedRunner(store, hydra)
