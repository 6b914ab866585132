"""What a search is, in a file of the sweep's folder: all that it takes to go on with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dlrun.storage.files import write_atomically
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.search import bases, space
from dlrun.sweeps.search.bases import Bases
from dlrun.sweeps.search.settings import Settings
from dlrun.sweeps.search.space import Space

FILE = "search.json"
TRIALS = "trials.jsonl"
"""Optuna's own file: `optuna-dashboard` reads it."""


@dataclass(frozen=True)
class Plan:
    """The space, how it is searched, what its configurations are made of, and whether all is run anew."""

    space: Space
    settings: Settings
    bases: Bases
    fresh: bool = False

    @property
    def total(self) -> int:
        """Return how many trials there are in all."""
        return self.settings.trials(self.space)

    def write(self, sweep: SweepDir) -> None:
        """Write it into the sweep's folder."""
        content = {
            "space": self.space.plain(),
            "settings": asdict(self.settings),
            "bases": self.bases.plain(),
            "fresh": self.fresh,
        }
        write_atomically(sweep.path / FILE, json.dumps(content, indent=1).encode() + b"\n")

    def longer(self, n_trials: int | None) -> Plan:
        """Return the plan with another number of trials in all."""
        return replace(self, settings=replace(self.settings, n_trials=n_trials))

    def probes(self) -> list[tuple[str, ...]]:
        """Return the overrides of jobs that together have each choice, and both ends of each range, once."""
        dimensions = self.space.dimensions
        choices = [dimension.values for key, dimension in dimensions.items() if key in self.bases.keys]
        count = max([2, *(len(values) for values in choices if values)])
        return [self.space.overrides(self._probe(number))[0] for number in range(count)]

    def _probe(self, number: int) -> dict[str, object]:
        probe: dict[str, object] = {}
        for key, dimension in self.space.dimensions.items():
            values: Sequence[object] = (dimension.values or ()) if key in self.bases.keys else dimension.ends
            probe[key] = values[number % len(values)]
        return probe


def trials_of(sweep: SweepDir) -> Path:
    """Return the file of the search's trials."""
    return sweep.path / TRIALS


def is_search(sweep: SweepDir) -> bool:
    """Return whether a sweep is a search."""
    return (sweep.path / FILE).exists()


def read(sweep: SweepDir) -> Plan:
    """Return the plan of a sweep that is a search."""
    content = json.loads((sweep.path / FILE).read_text())
    chosen = Settings(**content["settings"])
    return Plan(space.of(content["space"]), chosen, bases.of(content["bases"]), content["fresh"])
