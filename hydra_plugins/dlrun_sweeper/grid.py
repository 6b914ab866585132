"""The sweeper `grid`: every combination of the values. Thin, for every start of Hydra imports it.

Hydra's own composes each job once more, only to see if it can; the launcher does that anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlrun.sweeps.plugins import ListSweeper


class GridSweeper(ListSweeper):
    """All combinations of `params` and the command line.

    With `blocks` there is such a grid for each of them, which has its values too. Where a block and the command line
    give one key, the block wins if it stands there itself, else the command line. `also` are single jobs beside the
    grid. `scale` is a dial for the whole: the keys of `scaled` are multiplied by
    powers of it (`dlrun.sweeps.jobs.scale`).
    """

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        also: Sequence[Mapping[str, Any]] | None = None,
        blocks: Sequence[Any] | None = None,
        scale: float = 1,
        scaled: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self.params = dict(params or {})
        self.also = [dict(values) for values in also or ()]
        self.blocks = blocks or ()
        self.scale = scale
        self.scaled = dict(scaled or {})

    def jobs(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of each job, those beside the grid first."""
        from dlrun.errors import ConfigError
        from dlrun.sweeps.jobs.scale import scale_values

        if self.scale != 1 and not self.scaled:
            raise ConfigError(f"hydra.sweeper.scale={self.scale}: this sweep has no such dial (hydra.sweeper.scaled).")
        params = scale_values(self.params, self.scale, self.scaled, self.config)
        shared = [f"{key}={value}" for key, value in params.items()]
        typed = any(str(o).startswith("hydra.sweeper.blocks=") for o in self.config.hydra.overrides.hydra)
        grid = []
        for block in self._blocks():
            grid += self.combinations([*shared, *block, *arguments, *block] if typed else [*shared, *block, *arguments])
        # the largest first
        return [*beside(grid, [self._scale(values) for values in self.also]), *grid]

    def _blocks(self) -> list[list[str]]:
        """The overrides of each block; one without any if there are none."""
        from omegaconf import OmegaConf

        from dlrun.config.hydra_parser import block_words

        # references are those of the jobs; Hydra has resolved them in what it hands over
        raw = OmegaConf.to_container(self.config.hydra.sweeper, resolve=False).get("blocks")  # type: ignore[union-attr]
        given = raw if isinstance(raw, list) else self.blocks
        blocks = [self._scale(dict(map(_key_and_value, block_words(block)))) for block in given] or [{}]
        # a choice of some blocks is named in all: otherwise nothing would tell their jobs apart
        chosen = self.config.hydra.runtime.choices
        groups = dict.fromkeys(key for block in blocks for key in block if isinstance(chosen.get(key), str))
        whole = [{**{group: chosen[group] for group in groups if group not in block}, **block} for block in blocks]
        # a deletion has no value
        return [[key if value is None else f"{key}={value}" for key, value in block.items()] for block in whole]

    def _scale(self, values: Mapping[str, Any]) -> dict[str, Any]:
        from dlrun.sweeps.jobs.scale import scale_values

        powers = {key: power for key, power in self.scaled.items() if key in values}
        return scale_values(values, self.scale, powers, self.config)


def _key_and_value(word: str) -> tuple[str, str | None]:
    key, is_, value = word.partition("=")
    return key, value if is_ else None


def beside(jobs: Sequence[Sequence[str]], also: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The jobs with each of `also` set, once each.

    >>> beside([["lr=1", "seed=0"], ["lr=2", "seed=0"]], [{"lr": 9}])
    [['lr=9', 'seed=0']]
    """
    grid = [list(job) for job in jobs]
    changed = {tuple(_replace(job, values)): None for values in also for job in grid}
    return [list(job) for job in changed if list(job) not in grid]


def _replace(job: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    new = {key: f"{key}={'null' if value is None else value}" for key, value in values.items()}
    return [*(new.pop(override.partition("=")[0], override) for override in job), *new.values()]
