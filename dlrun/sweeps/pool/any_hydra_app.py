"""The jobs of any Hydra app in the pool, a process a job, as Hydra's own launchers run them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from dlrun.errors import ConfigError, RunError, did_you_mean
from dlrun.sweeps.pool.display import Display, describe_failures
from dlrun.sweeps.pool.slots import slots_for
from dlrun.sweeps.pool.task import Task, TaskResult
from dlrun.terminal import output

ON_FAILURE = ("continue", "stop")


class LauncherSettings(Protocol):
    """A launcher, with its keys and what Hydra gave it."""

    slots: int | None
    jobs_per_gpu: int
    threads: int | None
    on_failure: str
    hydra_context: HydraContext
    task_function: TaskFunction
    config: DictConfig


@dataclass(frozen=True)
class HydraJob:
    """A composed job and its folder."""

    number: int
    label: str
    config: DictConfig
    folder: Path


def keeps_going(on_failure: str) -> bool:
    """True for `continue`; raises `ConfigError` for an unknown word."""
    if on_failure not in ON_FAILURE:
        raise ConfigError(
            f"hydra.launcher.on_failure=`{on_failure}`: it is one of {', '.join(ON_FAILURE)}."
            f"{did_you_mean(on_failure, ON_FAILURE)}"
        )
    return on_failure == "continue"


def launch(launcher: LauncherSettings, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
    """Run the jobs; returns their results in the same order.

    Raises `ConfigError` for invalid settings of the launcher.
    """
    setup_globals()
    config, keep_going = launcher.config, keeps_going(launcher.on_failure)
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    Path(str(config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    jobs = [_compose(launcher, initial_job_idx + i, overrides) for i, overrides in enumerate(job_overrides)]
    slots = slots_for(
        len(jobs),
        device="auto",
        jobs_per_gpu=launcher.jobs_per_gpu,
        slots=launcher.slots,
        threads=launcher.threads,
    )
    # not at the top: `batched` imports this file, and often needs no process at all
    from dlrun.sweeps.pool.pool import Pool

    display, results = Display(len(jobs)), dict[int, TaskResult]()

    def take(result: TaskResult) -> bool:
        results[result.key] = result
        display.show_result(result)
        return keep_going or result.error is None

    with Pool(slots) as pool:
        pool.run((_task(launcher, job) for job in jobs), on_result=take, on_tick=display.show)
    failures = describe_failures(list(results.values()))
    if failures:
        output.warn(failures)
    # once more, as Hydra's own launchers do
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    return [_job_return(job, results.get(job.number)) for job in jobs]


def _compose(launcher: LauncherSettings, number: int, overrides: Sequence[str]) -> HydraJob:
    config = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, list(overrides))
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    with _current(config):
        folder = Path(str(OmegaConf.select(config, "hydra.sweep.dir")), str(config.hydra.sweep.subdir)).absolute()
    return HydraJob(number, " ".join(filter_overrides(overrides)), config, folder)


@contextmanager
def _current(config: DictConfig) -> Iterator[None]:
    """Resolve `${hydra:…}` by this job's configuration."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def _task(launcher: LauncherSettings, job: HydraJob) -> Task:
    call = partial(_run, launcher.hydra_context, launcher.task_function, job.config, Singleton.get_state())
    return Task(job.number, call, job.label, job.folder / "output.log")


def _run(context: HydraContext, task: TaskFunction, config: DictConfig, state: dict[str, Any]) -> JobReturn:
    """Run one job in its process."""
    setup_globals()
    # Hydra is not set up in this process: these are the launcher's globals
    Singleton.set_state(state)
    done = run_job(
        hydra_context=context,
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    if done.status == JobStatus.FAILED:
        raise done._return_value
    return done


def _job_return(job: HydraJob, result: TaskResult | None) -> JobReturn:
    """The job's result for Hydra, failed if there is none."""
    if result is not None and result.error is None:
        done: JobReturn = result.value
        return done
    plain = copy.deepcopy(job.config)
    with read_write(plain), open_dict(plain):
        del plain["hydra"]
    return JobReturn(
        overrides=list(job.config.hydra.overrides.task),
        cfg=plain,
        hydra_cfg=job.config,
        working_dir=str(job.folder if job.config.hydra.job.chdir else Path.cwd()),
        task_name=JobRuntime.instance().get("name"),
        status=JobStatus.FAILED,
        _return_value=result.error if result else RunError("not started: a job before it failed"),
    )
