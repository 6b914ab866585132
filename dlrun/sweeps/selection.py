"""The selection of a sweep: the group of jobs with the best mean of the monitored metric over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from dlrun.storage.manifest import Manifest
from dlrun.storage.results import Result, finished
from dlrun.storage.sweep_summary import Selection


@dataclass(frozen=True)
class SelectedGroup:
    """The selected group of jobs."""

    group: str
    label: str
    mean: float | None  # of the monitored metric
    jobs: tuple[int, ...]  # their numbers

    @classmethod
    def of(cls, group: str, results: Sequence[Result], monitor: str) -> SelectedGroup:
        numbers = tuple(result.job.n for result in results)
        return cls(group, results[0].job.group_label, _mean(results, monitor), numbers)

    def to_summary(self, monitor: str) -> Selection:
        """The entry in the sweep's summary."""
        return {"group": self.group, "label": self.label, "monitor": monitor, "mean": self.mean, "jobs": [*self.jobs]}


def select_group(found: Sequence[Result], manifest: Manifest, *, some_seeds: bool = False) -> SelectedGroup | None:
    """The best group with all its jobs finished, or None.

    Groups are compared like a run's weights: by the monitored metric, equal ones by the validation loss. A single
    group needs no metric, so that a sweep of seeds needs no validation split; with `some_seeds` its finished jobs
    suffice.
    """
    if some_seeds and len({result.job.group for result in found}) == 1:
        found = [result for result in finished(found) if not result.changed]
    groups = eligible(found)
    if len(groups) == len({result.job.group for result in found}) == 1:
        ((group, results),) = groups.items()
        return SelectedGroup.of(group, results, manifest.monitor)
    # the smallest tuple is the best: by the metric, then the loss, then the order in the sweep
    sign = -1.0 if manifest.higher_is_better else 1.0
    ranked = []
    for order, (group, results) in enumerate(groups.items()):
        mean = _mean(results, manifest.monitor)
        loss = _mean(results, "val/loss")
        if mean is not None:
            ranked.append((sign * mean, float("inf") if loss is None else loss, order, group))
    if not ranked:
        return None
    group = min(ranked)[3]
    return SelectedGroup.of(group, groups[group], manifest.monitor)


def eligible(found: Sequence[Result]) -> dict[str, list[Result]]:
    """The groups with all their jobs finished, as they were defined."""
    groups: dict[str, list[Result]] = {}
    for result in found:
        groups.setdefault(result.job.group, []).append(result)
    return {group: rs for group, rs in groups.items() if all(r.status == "finished" and not r.changed for r in rs)}


def _mean(results: Sequence[Result], metric: str) -> float | None:
    """A metric's mean over runs, if finite in all."""
    values = [result.metrics.get(metric) for result in results]
    known = [value for value in values if value is not None and isfinite(value)]
    return fmean(known) if len(known) == len(values) else None
