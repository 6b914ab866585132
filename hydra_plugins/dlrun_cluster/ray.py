"""The launcher `ray`: a sweep's jobs on a Ray cluster. Thin, for every start of Hydra imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from hydra_plugins.dlrun_cluster.launcher import ClusterLauncher

if TYPE_CHECKING:
    from dlrun.sweeps.plugins import JobRunner
    from dlrun.sweeps.store import SweepStore

INIT = (
    *("address", "num_cpus", "num_gpus", "resources", "object_store_memory", "include_dashboard", "dashboard_host"),
    *("namespace", "runtime_env", "log_to_driver"),
)
REMOTE = ("num_gpus", "memory", "resources", "accelerator_type", "max_calls", "max_retries", "runtime_env")

# `ray` as in the plugin hydra-ray-launcher; other arguments are given with a plus: +hydra.launcher.ray.init.NAME=…
KEYS: dict[str, Any] = {
    "_target_": "hydra_plugins.dlrun_cluster.ray.RayLauncher",
    # arguments of ray.init (address: auto joins a running cluster), and of ray.remote for each job
    "ray": {"init": dict.fromkeys(INIT), "remote": {"num_cpus": 1, **dict.fromkeys(REMOTE)}},
    "on_failure": "continue",
}
ConfigStore.instance().store(group="hydra/launcher", name="ray", node=KEYS, provider="dlrun")


class RayLauncher(ClusterLauncher):
    """Has Ray run each job of a sweep of dlrun."""

    @staticmethod
    def job_runner(store: SweepStore, hydra: DictConfig) -> JobRunner:
        from dlrun.sweeps.cluster.on_ray import RayExecutor
        from dlrun.sweeps.cluster.runner import ClusterRunner

        return ClusterRunner(store, RayExecutor(hydra.launcher), detach=bool(hydra.launcher.get("detach")))

    @staticmethod
    def check(launcher: DictConfig) -> None:
        from dlrun.sweeps.cluster import on_ray

        on_ray.check()
