"""The sweeper `search`: a search among dlrun's own runs. Thin, for every start of Hydra imports it."""

from __future__ import annotations

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class OptunaSweeper(Sweeper):
    """Asks for a trial whenever a slot is free."""

    def __init__(self, **settings: Any) -> None:
        # the keys of conf/hydra/sweeper/search.yaml
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the task, and make the launcher."""
        from hydra.core.plugins import Plugins

        self.task_function = task_function
        self.launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search; the results are in the sweep's folder."""
        from dlrun.errors import ConfigError

        if not hasattr(self.task_function, "run_jobs"):
            raise ConfigError("hydra/sweeper=search searches among dlrun's runs: type hydra/launcher=local.")
        from dlrun.sweeps.search.run import start_or_continue

        given = {k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for k, v in self.settings.items()}
        start_or_continue(self.task_function, self.launcher, given, arguments)  # type: ignore[arg-type]
