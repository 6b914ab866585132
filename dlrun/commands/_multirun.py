"""A composed sweep handed to Hydra's sweeper: its jobs conducted by dlrun's own launcher, or only listed.

These private names of Hydra 1.3 are used here, each by a test of tests/config/test_compose.py:
`_internal.hydra.Hydra`, `_internal.callbacks.Callbacks`, `_internal.config_loader_impl.ConfigLoaderImpl`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from dlrun.config.compose import load
from dlrun.errors import ConfigError, RunError, UserError

if TYPE_CHECKING:
    from dlrun.sweeps.hydra_task import Listing, SweepTask
    from dlrun.sweeps.jobs import ComposedJob

OWN = "hydra_plugins.dlrun"
"""How the targets of dlrun's own launchers and sweepers begin."""


def conduct(hydra: Hydra, master: DictConfig) -> int | None:
    """Carry out a sweep with dlrun's own launcher; returns the exit code, or None if another launcher is chosen."""
    if not str(master.hydra.launcher._target_).startswith(OWN):
        return None
    from dlrun.sweeps import location  # torch, which `--cfg job` needs not
    from dlrun.sweeps.hydra_task import SweepTask

    place = location.locate(master)
    master.hydra.sweep.dir = str(place.sweep.path)
    try:
        with SweepTask(place) as task:
            _swept(hydra, master, task)
            return task.finish()
    finally:
        _leave_no_trace(place.sweep.path)


def listed(hydra: Hydra, overrides: list[str], master: DictConfig) -> list[ComposedJob]:
    """Return the jobs of a sweep, of which none is run."""
    from dlrun.sweeps.hydra_task import Listing
    from dlrun.sweeps.location import GRIDS

    if not str(master.hydra.launcher._target_).startswith(OWN):
        master = load(hydra, master.hydra.job.config_name, [*overrides, "hydra/launcher=local"])
    if not str(master.hydra.sweeper._target_).endswith(GRIDS):
        raise UserError(
            "A search decides its jobs as it goes, so they cannot be listed: check one configuration of it."
        )
    task = Listing()
    _swept(hydra, master, task)
    return task.candidates


def _swept(hydra: Hydra, master: DictConfig, task: SweepTask | Listing) -> None:
    """Have the sweeper hand its jobs to the launcher, as `Hydra.multirun` does, but with what is composed already."""
    callbacks, name = Callbacks(master), master.hydra.job.config_name
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    configure_log(master.hydra.hydra_logging, master.hydra.verbose)
    try:
        given = OverridesParser.create().parse_overrides(list(master.hydra.overrides.hydra))
        ConfigLoaderImpl.validate_sweep_overrides_legal(given, RunMode.MULTIRUN, from_shell=True)
        callbacks.on_multirun_start(config=master, config_name=name)
        sweeper = Plugins.instance().instantiate_sweeper(config=master, hydra_context=context, task_function=task)
        sweeper.sweep(arguments=list(master.hydra.overrides.task))
        callbacks.on_multirun_end(config=master, config_name=name)
    except HydraException as error:
        raise ConfigError(str(error)) from error
    except RunError:  # of a job, which Hydra's own sweeper raises again
        if not task.begun:
            raise


def _leave_no_trace(folder: Path) -> None:
    """Remove the folder that a sweeper has made for a sweep whose jobs were then refused."""
    if folder.is_dir() and not {path.name for path in folder.iterdir()} - {"multirun.yaml"}:
        shutil.rmtree(folder)
