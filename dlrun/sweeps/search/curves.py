"""What jobs say of themselves while they run: the monitored metric at each evaluation, from their journals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from dlrun.storage import journal
from dlrun.storage.rundir import RunDir


@dataclass
class _Followed:
    offset: int = 0
    points: dict[int, float] = field(default_factory=dict)


class CurveReader:
    """Follows the metric `monitor` through journals, of which it reads each line once."""

    def __init__(self, monitor: str) -> None:
        self._monitor = monitor
        self._followed: dict[RunDir, _Followed] = {}

    def values(self, run: RunDir) -> list[float]:
        """Return the metric at the first, the second, … evaluation of a run, as far as it has come."""
        followed = self._followed.setdefault(run, _Followed())
        records, followed.offset = journal.read(run.journal, followed.offset)
        for record in records:
            value = record.get("metrics", {}).get(self._monitor)
            if value is not None:
                # of two points of one step the later counts: the run was resumed behind them
                followed.points[int(record["step"])] = float(value)
        return [value for _, value in sorted(followed.points.items())]

    def mean(self, runs: Sequence[RunDir]) -> list[float]:
        """Return the mean over runs at each evaluation that all of them have come to."""
        return [fmean(values) for values in zip(*map(self.values, runs), strict=False)] if runs else []
