"""The settings of a search: the keys of `hydra.sweeper`, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any

from dlrun.errors import ConfigError, UserError, did_you_mean
from dlrun.sweeps.search.space import IntervalDimension, RangeDimension, Space

SAMPLERS = ("tpe", "random", "grid", "cmaes")
PRUNERS = ("median", "hyperband", "none")
TRIALS = 20
"""Trials if none are given, but for a grid, which has an end."""
# the points are shuffled in memory
LARGEST_GRID = 100_000


@dataclass(frozen=True)
class SearchSettings:
    """The number of trials, their sampler and their pruner.

    The same `seed` proposes the same trials, unless they depend on which jobs were faster. tpe draws its first
    `startup` trials at random. The pruner waits for as many to finish, and stops none in its first `warmup`
    evaluations.
    """

    n_trials: int | None = None
    sampler: str = "tpe"
    pruner: str = "median"
    seed: int = 0
    startup: int = 5
    warmup: int = 1

    def trials(self, space: Space) -> int:
        """The number of trials, at most a grid's points."""
        if self.sampler != "grid":
            return self.n_trials or TRIALS
        size = space.size() or 0
        return min(self.n_trials or size, size)


def read(given: Mapping[str, Any]) -> SearchSettings:
    """A sweeper's settings; raises `ConfigError` for an invalid one."""
    names = [field.name for field in fields(SearchSettings)]
    if unknown := [name for name in given if name not in (*names, "params")]:
        raise ConfigError(
            f"hydra.sweeper.{unknown[0]}: a search has no such setting.{did_you_mean(unknown[0], names)} It has: "
            f"{', '.join((*names, 'params'))}."
        )
    found = SearchSettings(**{field.name: given[field.name] for field in fields(SearchSettings) if field.name in given})
    _check_name("sampler", found.sampler, SAMPLERS)
    _check_name("pruner", found.pruner, PRUNERS)
    for name, least in (("n_trials", 1), ("seed", 0), ("startup", 0), ("warmup", 0)):
        value = getattr(found, name)
        if name == "n_trials" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"hydra.sweeper.{name}={value}: expected a whole number, at least {least}.")
    return found


def check(settings: SearchSettings, space: Space) -> None:
    """Raise `UserError` for an unfit sampler or missing package."""
    needed = {"optuna": "", "cmaes": "sampler=cmaes "} if settings.sampler == "cmaes" else {"optuna": ""}
    for package, option in needed.items():
        if find_spec(package) is None:
            raise UserError(
                f"hydra/sweeper=search {option}needs the package {package}, which is not installed. "
                "Type: pip install 'dlrun[search]'"
            )
    if settings.sampler == "grid":
        _check_grid(space)
    if (
        settings.sampler == "cmaes"
        and sum(isinstance(d, IntervalDimension | RangeDimension) for d in space.common.values()) < 2
    ):
        raise ConfigError(
            "hydra.sweeper.sampler=cmaes searches over two or more numbers (interval or range) that all choices have, "
            "and draws all others at random. Give it more numbers, or type hydra.sweeper.sampler=tpe."
        )


def _check_grid(space: Space) -> None:
    endless = [key for key, dimension in space.dimensions.items() if dimension.values is None]
    if endless:
        raise ConfigError(
            f"hydra.sweeper.sampler=grid: {', '.join(endless)} has no end of values. Give some of them, as in "
            f"`{endless[0]}=0.01,0.03,0.1` or `{endless[0]}=range(0.1,0.6,0.1)`, or choose another sampler."
        )
    if (space.size() or 0) > LARGEST_GRID:
        raise ConfigError(
            f"hydra.sweeper.sampler=grid: the grid has {space.size()} points, more than {LARGEST_GRID}. "
            "Give fewer values, or type hydra.sweeper.sampler=random."
        )


def _check_name(key: str, given: str, valid: tuple[str, ...]) -> None:
    if given not in valid:
        raise ConfigError(
            f"hydra.sweeper.{key}=`{given}`: it is one of {', '.join(valid)}.{did_you_mean(str(given), valid)}"
        )
