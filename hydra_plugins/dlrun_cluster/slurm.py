"""The launcher `slurm`: a sweep's jobs by submitit. Thin, for every start of Hydra imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from hydra_plugins.dlrun_cluster.launcher import ClusterLauncher

if TYPE_CHECKING:
    from dlrun.sweeps.plugins import JobRunner
    from dlrun.sweeps.store import SweepStore

# those of the plugin hydra-submitit-launcher, and the last three
KEYS: dict[str, Any] = {
    "_target_": "hydra_plugins.dlrun_cluster.slurm.SlurmLauncher",
    "submitit_folder": None,  # .submitit/%j of the sweep's folder
    "timeout_min": 60,
    "cpus_per_task": None,
    "gpus_per_node": None,
    "tasks_per_node": 1,
    "mem_gb": None,
    "nodes": 1,
    "name": "dlrun",
    "stderr_to_stdout": False,
    "partition": None,
    "qos": None,
    "comment": None,
    "constraint": None,
    "exclude": None,
    "gres": None,
    "cpus_per_gpu": None,
    "gpus_per_task": None,
    "mem_per_gpu": None,
    "mem_per_cpu": None,
    "account": None,
    "signal_delay_s": 120,  # a job is asked to save so long before its limit of time
    "max_num_timeout": 3,  # how often a job that has reached it goes on; after a preemption it always does
    "additional_parameters": {},  # of sbatch
    "array_parallelism": 256,
    "setup": None,
    "cluster": "slurm",  # or local: submitit's processes on this machine
    "detach": False,  # submit and return
    "on_failure": "continue",
}
ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=KEYS, provider="dlrun")


class SlurmLauncher(ClusterLauncher):
    """Has SLURM run each job of a sweep of dlrun."""

    @staticmethod
    def job_runner(store: SweepStore, hydra: DictConfig) -> JobRunner:
        from dlrun.sweeps.cluster.on_slurm import SlurmExecutor
        from dlrun.sweeps.cluster.runner import ClusterRunner

        executor = SlurmExecutor(hydra.launcher, store.sweep.path)
        return ClusterRunner(store, executor, detach=bool(hydra.launcher.get("detach")))

    @staticmethod
    def check(launcher: DictConfig) -> None:
        from dlrun.sweeps.cluster import on_slurm

        on_slurm.check(launcher)
