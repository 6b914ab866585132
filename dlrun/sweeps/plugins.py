"""Hydra's plugins and dlrun: launchers that can run its jobs, sweepers that can list them.

Thin, for every start of Hydra imports it. A plugin is recognised by its methods, not by its name.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from dlrun.errors import ConfigError

if TYPE_CHECKING:
    from dlrun.storage.jobs.job import Job
    from dlrun.sweeps.job_events import JobEvents
    from dlrun.sweeps.pool.task import Task, TaskResult
    from dlrun.sweeps.store import SweepStore


SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"
ADOPTED = {
    f"{SUBMITIT}.SlurmLauncher": {"_target_": "hydra_plugins.dlrun_cluster.slurm.SlurmLauncher"},
    f"{SUBMITIT}.LocalLauncher": {"_target_": "hydra_plugins.dlrun_cluster.slurm.SlurmLauncher", "cluster": "local"},
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher": {
        "_target_": "hydra_plugins.dlrun_cluster.ray.RayLauncher"
    },
}
"""Launchers of other plugins, and the keys of ours that does more with the same settings."""


class JobRunner(Protocol):
    """Runs jobs in processes (`pool.runner`) or stacked (`batched.runner`)."""

    def run(self, jobs: Iterable[Job | None], events: JobEvents, *, count: int) -> None:
        """Run the jobs, `count` at most.

        Each is pulled when a slot is free; None means that there is none just now. Raises `KeyboardInterrupt` or
        `SystemExit(143)` after an interrupt, when all jobs have saved.
        """

    def run_tasks(
        self, tasks: Sequence[Task], *, on_result: Callable[[TaskResult], bool], on_tick: Callable[[int], None]
    ) -> None:
        """Run other tasks of finished jobs, such as their tests.

        `on_tick` gets the number of running tasks.
        """

    def stop(self, n: int) -> None:
        """Stop a running job, saved: it becomes `pruned`."""

    def going(self) -> Collection[int]:
        """The jobs that an earlier process has begun elsewhere: `run` follows them and begins none of them again."""


class MakesJobRunner(Protocol):
    """A launcher for sweeps of dlrun."""

    @staticmethod
    def job_runner(store: SweepStore, hydra: DictConfig) -> JobRunner:
        """A runner with the settings of `hydra.launcher`."""


class ListsJobs(Protocol):
    """A sweeper with known jobs, for `dlrun check -m`."""

    def jobs(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of each job.

        `arguments` are the overrides of the command line.
        """


class ListSweeper(Sweeper):
    """Hands a list of jobs to the launcher.

    A subclass in a module under `hydra_plugins` has `jobs`; `conf/hydra/sweeper/NAME.yaml` names it, with its
    arguments, for `hydra/sweeper=NAME`. tests/sweeps/test_plugins.py has the smallest one.
    """

    hydra_context: HydraContext
    config: DictConfig

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config
        self._launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    @abstractmethod
    def jobs(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of each job, in order.

        `arguments` are the overrides of the command line, as typed. Each job repeats those with one value, which win
        over its own; `combinations` splits those with several. It may be called more than once.
        """

    def combinations(self, arguments: Iterable[str]) -> list[list[str]]:
        """Every combination of the overrides' values.

        Raises `ConfigError` for a range to search in.
        """
        # every start of Hydra imports this file
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
        from hydra.core.override_parser.overrides_parser import OverridesParser

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides(list(arguments))
        for override in overrides:
            if override.is_sweep_override() and not override.is_discrete_sweep():
                raise ConfigError(
                    f"`{override.input_line}` is a range to search in, and this sweeper takes values one by one. "
                    f"Type hydra/sweeper=search to search."
                )
        (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
        return [list(job) for job in jobs]

    def sweep(self, arguments: list[str]) -> Any:
        """Launch all jobs in one call; returns their results."""
        # one batch: Hydra's own sweepers return a list of them
        return [self._launcher.launch(self.jobs(arguments), initial_job_idx=0)]


def adopt(hydra: DictConfig) -> None:
    """Put dlrun's own launcher in the place of a plugin's that hands jobs to the same scheduler; its keys stay."""
    own = ADOPTED.get(str(hydra.launcher.get("_target_")))
    if own is None:
        return
    kept = OmegaConf.to_container(hydra.launcher, resolve=False)
    assert isinstance(kept, dict)
    # the plugin's own value: the sweep's folder is not known yet where it is resolved
    if kept.get("submitit_folder") == "${hydra.sweep.dir}/.submitit/%j":
        del kept["submitit_folder"]
    with read_write(hydra), open_dict(hydra):
        hydra.launcher = OmegaConf.create({str(key): value for key, value in kept.items()} | own)


def is_of_scheduler(launcher: DictConfig) -> bool:
    """Whether a scheduler chooses the machines of jobs."""
    return str(launcher.get("_target_")).startswith("hydra_plugins.dlrun_cluster.")


def gives_gpus(launcher: DictConfig) -> bool:
    """Whether jobs get GPUs of machines that a scheduler chooses."""
    if not is_of_scheduler(launcher):
        return False
    of_ray = OmegaConf.select(launcher, "ray.remote.num_gpus")
    counts = (launcher.get("gpus_per_node"), launcher.get("gpus_per_task"), of_ray)
    return any(counts) or "gpu" in str(launcher.get("gres"))


def makes_job_runner(launcher: DictConfig) -> type[MakesJobRunner] | None:
    """The launcher's class if it makes a `JobRunner`, else None.

    Raises `ConfigError` for a class that Hydra has not found.
    """
    return _plugin(launcher, "job_runner")


def lists_jobs(sweeper: DictConfig) -> type[ListsJobs] | None:
    """The sweeper's class if it lists its jobs, else None.

    Raises `ConfigError` for a class that Hydra has not found.
    """
    return _plugin(sweeper, "jobs")


def _plugin(config: DictConfig, method: str) -> type[Any] | None:
    # among the plugins that Hydra has found: a name in a configuration imports nothing here
    name = str(config.get("_target_"))
    found = {f"{plugin.__module__}.{plugin.__name__}": plugin for plugin in Plugins.instance().discover()}
    if name not in found:
        raise ConfigError(f"`{name}` is no plugin of Hydra: expected a class of an installed module of hydra_plugins.")
    return found[name] if hasattr(found[name], method) else None
