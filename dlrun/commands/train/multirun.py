"""A composed sweep and Hydra's sweeper: its jobs run by dlrun's own launchers, or listed.

These private names of Hydra 1.3 are used here, each by a test of tests/config/test_compose.py:
`_internal.hydra.Hydra`, `_internal.callbacks.Callbacks`, `_internal.config_loader_impl.ConfigLoaderImpl`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig

from dlrun.errors import ConfigError, Detached, RunError, UserError
from dlrun.sweeps.plugins import adopt, gives_gpus, lists_jobs, makes_job_runner
from dlrun.terminal import output

if TYPE_CHECKING:
    from dlrun.storage.sweepdir import SweepDir
    from dlrun.sweeps.jobs.composed import ComposedJobs
    from dlrun.sweeps.location import SweepLocation


def run(hydra: Hydra, master: DictConfig) -> int | None:
    """Run a sweep by the launcher's `JobRunner`.

    Returns the exit code, or None for a launcher without one.
    """
    if not _has_runner(master):
        name = master.hydra.runtime.choices.get("hydra/launcher")
        output.warn(
            f"hydra/launcher={name} runs each job by itself: there is no selection, no report, no run above the jobs "
            "in MLflow, and nothing for `dlrun resume`. hydra/launcher=local has all of these."
        )
        return None
    return _run(hydra, master)[1]


def run_sweep(hydra: Hydra, master: DictConfig) -> SweepDir:
    """Run a sweep as `run` does; returns its folder.

    Raises `UserError` for a launcher without a `JobRunner`.
    """
    if not _has_runner(master):
        name = master.hydra.runtime.choices.get("hydra/launcher")
        raise UserError(
            f"hydra/launcher={name} runs each job by itself, so that there is no sweep to return. Give "
            "hydra/launcher=local or hydra/launcher=batched."
        )
    return _run(hydra, master)[0]


def _has_runner(master: DictConfig) -> bool:
    adopt(master.hydra)
    return makes_job_runner(master.hydra.launcher) is not None


def _run(hydra: Hydra, master: DictConfig) -> tuple[SweepDir, int]:
    # not at the top: it imports torch, and `--cfg job` needs none
    from dlrun.execution.device import gpus_elsewhere
    from dlrun.sweeps.hydra_task import SweepTask

    location = locate(hydra, master)
    # the same sweep may have begun earlier, in another folder
    master.hydra.sweep.dir = str(location.sweep.path)
    try:
        with gpus_elsewhere(gives_gpus(master.hydra.launcher)), SweepTask(location) as task:
            try:
                _sweep(hydra, master, task)
            except RunError:
                # a failed job, which Hydra's own sweeper raises again; `finish` tells of it
                if not task.started:
                    raise
            return location.sweep, task.finish()
    except Detached as detached:
        output.say(str(detached))
        return location.sweep, detached.exit_code
    finally:
        _remove_empty(location.sweep.path)


def locate(hydra: Hydra, master: DictConfig) -> SweepLocation:
    """Find the folder of a composed sweep: that of an earlier one which is the same, or a new one."""
    from dlrun.sweeps import location

    with _config_errors():
        _check_overrides(master)
        return location.locate(master, _jobs(hydra, master))


def list_jobs(hydra: Hydra, master: DictConfig) -> tuple[ComposedJobs, list[str]]:
    """The jobs of a sweep, of which none is run; returns also what is left out of some of them.

    Raises `UserError` for a sweeper that does not know its jobs beforehand.
    """
    from dlrun.sweeps.jobs.composed import ComposedJobs
    from dlrun.sweeps.jobs.conditional import fit
    from dlrun.sweeps.jobs.expand import Expansion

    with _config_errors():
        _check_overrides(master)
        jobs = _jobs(hydra, master)
    if jobs is None:
        raise UserError(
            "This sweeper decides its jobs as it goes, so they cannot be listed: check one configuration of it, "
            "or type hydra/sweeper=grid."
        )
    expansion = Expansion(hydra.config_loader, master)
    fitted = fit(expansion, jobs)
    return ComposedJobs(expansion, fitted.jobs), fitted.left_out


def _jobs(hydra: Hydra, master: DictConfig) -> list[list[str]] | None:
    """The overrides of each job, if the sweeper lists them."""
    if lists_jobs(master.hydra.sweeper) is None:
        return None
    sweeper: Any = _sweeper(hydra, master, Callbacks(), _refuse)
    jobs: list[list[str]] = sweeper.jobs(list(master.hydra.overrides.task))
    return jobs


def _sweep(hydra: Hydra, master: DictConfig, task: TaskFunction) -> None:
    """Have the sweeper launch its jobs, like `Hydra.multirun`."""
    # `Hydra.multirun` itself would compose the configuration once more
    callbacks, name = Callbacks(master), master.hydra.job.config_name
    configure_log(master.hydra.hydra_logging, master.hydra.verbose)
    with _config_errors():
        callbacks.on_multirun_start(config=master, config_name=name)
        _sweeper(hydra, master, callbacks, task).sweep(arguments=list(master.hydra.overrides.task))
        callbacks.on_multirun_end(config=master, config_name=name)


def _sweeper(hydra: Hydra, master: DictConfig, callbacks: Callbacks, task: TaskFunction) -> Sweeper:
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    return Plugins.instance().instantiate_sweeper(config=master, hydra_context=context, task_function=task)


def _check_overrides(master: DictConfig) -> None:
    given = OverridesParser.create().parse_overrides(list(master.hydra.overrides.hydra))
    ConfigLoaderImpl.validate_sweep_overrides_legal(given, RunMode.MULTIRUN, from_shell=True)


@contextmanager
def _config_errors() -> Iterator[None]:
    try:
        yield
    except HydraException as error:
        raise ConfigError(str(error)) from error


def _refuse(config: DictConfig) -> Any:
    raise RunError("The jobs of this sweep are listed, not run.")


def _remove_empty(folder: Path) -> None:
    # a sweeper makes the folder before it hands over the jobs, which may all be refused
    if folder.is_dir() and not {path.name for path in folder.iterdir()} - {"multirun.yaml"}:
        shutil.rmtree(folder)
