"""What a sweep chooses: the group of jobs with the best mean of the monitored validation metric over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from dlrun.storage.manifest import Manifest
from dlrun.storage.results import Result
from dlrun.storage.summary import Selection


@dataclass(frozen=True)
class Selected:
    """The chosen group: how it is told, the mean that it was chosen by, and its jobs' numbers."""

    group: str
    label: str
    mean: float | None
    jobs: tuple[int, ...]

    def plain(self, monitor: str) -> Selection:
        """Return what the sweep's summary says of it."""
        return {"group": self.group, "label": self.label, "monitor": monitor, "mean": self.mean, "jobs": [*self.jobs]}


def selected(found: Sequence[Result], what: Manifest) -> Selected | None:
    """Return the best group of those whose jobs have all finished, or None if there is none.

    Means are compared as the weights of a run are: by the monitor, equal ones by the validation loss.
    A single group is chosen without a number, so that seeds alone need no validation split.
    """
    groups = eligible(found)
    if len(groups) == len({result.job.group for result in found}) == 1:
        ((group, results),) = groups.items()
        return _selected(group, results, _mean(results, what.monitor))
    sign = -1.0 if what.higher_is_better else 1.0
    ranked = []
    for order, (group, results) in enumerate(groups.items()):
        mean = _mean(results, what.monitor)
        loss = _mean(results, "val/loss")
        if mean is not None:
            ranked.append((sign * mean, float("inf") if loss is None else loss, order, group))
    if not ranked:
        return None
    group = min(ranked)[3]
    return _selected(group, groups[group], _mean(groups[group], what.monitor))


def eligible(found: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the groups of which every job has finished, with their results."""
    groups: dict[str, list[Result]] = {}
    for result in found:
        groups.setdefault(result.job.group, []).append(result)
    return {group: rs for group, rs in groups.items() if all(r.status == "finished" for r in rs)}


def _selected(group: str, results: Sequence[Result], mean: float | None) -> Selected:
    return Selected(group, results[0].job.label, mean, tuple(result.job.n for result in results))


def _mean(results: Sequence[Result], metric: str) -> float | None:
    """Return the mean of a metric over runs; None if one lacks it or it is not finite."""
    values = [result.metrics.get(metric) for result in results]
    known = [value for value in values if value is not None and isfinite(value)]
    return fmean(known) if len(known) == len(values) else None
