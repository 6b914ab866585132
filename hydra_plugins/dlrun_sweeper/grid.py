"""The sweeper `grid`: every combination of the values. Thin, for every start of Hydra imports it.

Hydra's own composes every job once more, only to see whether it can be; the launcher has to do so anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class GridSweeper(Sweeper):
    """Hands every combination of the values to the launcher, in one call.

    `scale` is a dial for the whole: what `scaled` names is multiplied by a power of it (`dlrun.sweeps.scale`).
    """

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        also: Sequence[Mapping[str, Any]] | None = None,
        scale: float = 1,
        scaled: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self.params = dict(params or {})
        self.also = [dict(values) for values in also or ()]
        self.scale = scale
        self.scaled = dict(scaled or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives a sweeper, and have the launcher made."""
        from hydra.core.plugins import Plugins

        self.hydra_context = hydra_context
        self.config = config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run all combinations of the values of `params` and the command line; return what came of them."""
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from dlrun.errors import ConfigError
        from dlrun.sweeps.scale import scaled

        if self.scale != 1 and not self.scaled:
            raise ConfigError(f"hydra.sweeper.scale={self.scale}: this sweep has no such dial (hydra.sweeper.scaled).")
        params = scaled(self.params, self.scale, self.scaled, self.config)
        also = [self._beside(values) for values in self.also]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        given = [f"{key}={value}" for key, value in params.items()]
        overrides = parser.parse_overrides([*given, *arguments])
        for override in overrides:
            if override.is_sweep_override() and not override.is_discrete_sweep():
                raise ConfigError(
                    f"`{override.input_line}` is a range to search in, and a grid takes values one by one. "
                    f"Type hydra/sweeper=optuna to search."
                )
        (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
        returned: Sequence[Any] = self.launcher.launch([*beside(jobs, also), *jobs], initial_job_idx=0)
        return [returned]

    def _beside(self, values: Mapping[str, Any]) -> dict[str, Any]:
        from dlrun.sweeps.scale import scaled

        powers = {key: power for key, power in self.scaled.items() if key in values}
        return scaled(values, self.scale, powers, self.config)


def beside(jobs: Sequence[Sequence[str]], also: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the jobs beside the grid: those with the values of each of `also` in the place of their own, once each.

    >>> beside([["lr=1", "seed=0"], ["lr=2", "seed=0"]], [{"lr": 9}])
    [['lr=9', 'seed=0']]
    """
    changed = {tuple(_with(job, values)): None for values in also for job in jobs}
    return [list(job) for job in changed if list(job) not in [list(job) for job in jobs]]


def _with(job: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    given = {key: f"{key}={'null' if value is None else value}" for key, value in values.items()}
    return [*(given.pop(override.partition("=")[0], override) for override in job), *given.values()]
