"""search.json in a sweep's folder: all that a search needs to be resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dlrun.errors import ConfigError, DamagedFile
from dlrun.storage.files.json_text import dumps, tagged, untagged
from dlrun.storage.files.opening import read_json
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.search import bases, settings, space
from dlrun.sweeps.search.bases import Bases
from dlrun.sweeps.search.settings import SearchSettings
from dlrun.sweeps.search.space import Space

FILE = "search.json"
TRIALS = "trials.jsonl"
"""Optuna's own file: `optuna-dashboard` reads it."""

ADVICE = "Put a copy of it back; without one, start the search anew by its command, with sweep.fresh=true."


@dataclass(frozen=True)
class SearchDefinition:
    """A search; if `fresh` it reuses no other runs."""

    space: Space
    settings: SearchSettings
    bases: Bases
    fresh: bool = False

    @property
    def total(self) -> int:
        return self.settings.trials(self.space)

    def write(self, sweep: SweepDir) -> None:
        content = {
            "space": self.space.to_dict(),
            "settings": asdict(self.settings),
            "bases": self.bases.to_dict(),
            "fresh": self.fresh,
        }
        write_atomically(sweep.path / FILE, dumps(tagged(content), indent=1).encode() + b"\n")

    def with_trials(self, n_trials: int | None) -> SearchDefinition:
        """The same search with another number of trials."""
        return replace(self, settings=replace(self.settings, n_trials=n_trials))

    def probes(self) -> list[tuple[str, ...]]:
        """Overrides of a few jobs, to check beforehand.

        They have each choice of a file, and both ends of each range.
        """
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


def trials_file(sweep: SweepDir) -> Path:
    return sweep.path / TRIALS


def is_search(sweep: SweepDir) -> bool:
    return (sweep.path / FILE).exists()


def read(sweep: SweepDir) -> SearchDefinition:
    """The search of a sweep's folder.

    Raises `DamagedFile`.
    """
    content = untagged(read_json(sweep.path / FILE, advice=ADVICE))
    try:
        return SearchDefinition(
            space.from_dict(content["space"]),
            settings.read(dict(content["settings"])),
            bases.from_dict(content["bases"]),
            bool(content.get("fresh")),
        )
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError) as error:
        found = f"it holds no search ({type(error).__name__}: {error})"
        raise DamagedFile(sweep.path / FILE, found, ADVICE) from None
