"""The monitored metric of running jobs at each evaluation, read from their journals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from dlrun.storage import journal
from dlrun.storage.rundir import RunDir


@dataclass
class _Position:
    offset: int = 0
    values: dict[int, float] = field(default_factory=dict)


class CurveReader:
    """Reads the metric `monitor` from journals, each line once."""

    def __init__(self, monitor: str) -> None:
        self._monitor = monitor
        self._positions: dict[RunDir, _Position] = {}

    def values(self, run: RunDir) -> list[float]:
        """A run's metric at each evaluation so far."""
        position = self._positions.setdefault(run, _Position())
        records, position.offset = journal.read(run.journal, position.offset)
        for record in records:
            value = record.get("metrics", {}).get(self._monitor)
            if value is not None:
                # a resumed run evaluates some steps again, and the later value counts
                position.values[int(record["step"])] = float(value)
        return [value for _, value in sorted(position.values.items())]

    def mean(self, runs: Sequence[RunDir]) -> list[float]:
        """The mean over runs, at evaluations reached by all."""
        return [fmean(values) for values in zip(*map(self.values, runs), strict=False)] if runs else []
