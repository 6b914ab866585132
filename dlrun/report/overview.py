"""A finished or unfinished sweep as its report needs it: jobs with their runs, in ranked groups."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from dlrun.analysis.statistics import Spread, spread
from dlrun.analysis.value_range import ValueRange, value_range
from dlrun.storage.jobs.job import REPLICATED, Replicate
from dlrun.storage.manifest import Manifest, read
from dlrun.storage.read_counts import SweepReads, count_reads
from dlrun.storage.results import Result, finished, results, unended
from dlrun.storage.summary import Summary
from dlrun.storage.sweep_summary import SweepSummary
from dlrun.storage.sweepdir import SweepDir

SPLITS = ("train", "val", "test")
TEST = "test/"


@dataclass(frozen=True)
class JobGroup:
    """Repetitions of one configuration: jobs that differ in the seed, the split or the fold.

    `spread` is of the ranking metric.
    """

    key: str
    label: str
    results: Sequence[Result]
    spread: Spread
    selected: bool = False

    def short_label(self, keys: Sequence[str]) -> str:
        """The label for a figure: `lr=0.1, width=64`."""
        values = [(key, v) for key in keys if (v := swept_value(self.results[0], key)) is not None]
        parts = [f"{short_key(key, keys)}={f'{v:.4g}' if isinstance(v, float) else v}" for key, v in values]
        return ", ".join(parts) or self.label

    @property
    def complete(self) -> bool:
        """Every job of the group has a finite value."""
        return self.spread.n == self.size

    @property
    def size(self) -> int:
        """The number of its repetitions."""
        return len({result.job.replicate for result in self.results})

    def by_replicate(self, metric: str) -> dict[Replicate, float]:
        """A metric of the finished runs."""
        return {r.job.replicate: r.metrics[metric] for r in finished(self.results) if metric in r.metrics}

    def directions(self, metric: str) -> set[bool | None]:
        """What the runs say about whether higher values are better."""
        return {r.summary.higher_is_better(metric) for r in finished(self.results) if metric in r.metrics}

    def spread_of(self, metric: str, *, higher_is_better: bool = False) -> Spread:
        """The spread of any metric."""
        possible = range_of(metric, [r.summary for r in finished(self.results)])
        return spread([*self.by_replicate(metric).values()], higher_is_better=higher_is_better, possible=possible)


@dataclass(frozen=True)
class Overview:
    """A sweep with its groups, the best by `metric` first; in the sweep's order if that is a test metric.

    In a sweep over several data sets the groups are ranked within each of its `strata`, which have a `label`.
    """

    sweep: SweepDir
    manifest: Manifest
    results: Sequence[Result]
    groups: Sequence[JobGroup]
    metric: str
    summary: SweepSummary
    label: str = ""

    @cached_property
    def strata(self) -> list[Overview]:
        """The parts whose groups can be ranked; the sweep itself if that is all of it."""
        found = self.manifest.strata
        return [self] if len(found) == 1 else [self._part(label, groups) for label, groups in found.items()]

    def _part(self, label: str, groups: Collection[str]) -> Overview:
        manifest = replace(self.manifest, jobs=tuple(job for job in self.manifest.jobs if job.group in groups))
        own = [result for result in self.results if result.job.group in groups]
        summary = self.summary.of_stratum(groups)
        metric = _metric(manifest, own)
        return Overview(self.sweep, manifest, own, _groups(manifest, own, metric, summary), metric, summary, label)

    @cached_property
    def finished(self) -> list[Result]:
        return finished(self.results)

    @property
    def selected(self) -> JobGroup | None:
        """The selected group, if there is one for the whole sweep."""
        chosen = [group for group in self.groups if group.selected]
        return chosen[0] if chosen and len(self.strata) == 1 else None

    @property
    def in_order(self) -> bool:
        """The groups are in the sweep's order, since only test values could rank them."""
        return self.metric.startswith(TEST)

    @cached_property
    def ranked(self) -> list[JobGroup]:
        """The groups that have a value."""
        return [group for group in self.groups if group.spread.n]

    @property
    def swept(self) -> list[str]:
        """The keys with more than one value, without the seeds."""
        return [key for key in self.manifest.swept if key not in REPLICATED]

    @cached_property
    def unended(self) -> dict[str, int]:
        """The jobs that have not ended, by status."""
        return unended(self.results, self.summary)

    @cached_property
    def reads(self) -> SweepReads:
        """The counted reads of the test split."""
        return count_reads(self.sweep.id, self.results, self.summary)


def read_overview(sweep: SweepDir) -> Overview:
    """Read a sweep, finished or not, from its folder."""
    manifest = read(sweep)
    found = results(sweep, manifest)
    metric = _metric(manifest, found)
    summary = sweep.summary()
    return Overview(sweep, manifest, found, _groups(manifest, found, metric, summary), metric, summary)


def range_of(metric: str, summaries: Sequence[Summary]) -> ValueRange:
    """What the values of a metric can be, by its unit and its samples."""
    counts = {summary.sample_count(metric) for summary in summaries}
    units = [summary.unit(metric) for summary in summaries]
    return value_range(metric, units, counts.pop() if len(counts) == 1 else None)


def swept_label(manifest: Manifest, result: Result) -> str:
    """The job's swept overrides, without the seeds."""
    telling = [f"{k}={v}" for k, v in result.swept.items() if k in manifest.swept and k not in REPLICATED]
    return " ".join(telling) or manifest.name


def swept_value(result: Result, key: str) -> Any:
    """The job's value of a swept key; None if its choices do not have the key.

    A choice from a configuration group (`optimizer=sgd`) is its name, not the configuration behind it.
    """
    found = result.value(key)
    if isinstance(found, int | float | str):
        return found
    without_name = isinstance(found, dict) or not result.has(key)
    return result.swept.get(key, None if without_name else "null" if found is None else str(found))


def short_key(key: str, keys: Sequence[str]) -> str:
    """The last part of a key, if it is unique.

    >>> short_key("optimizer.lr", ["optimizer.lr", "model.width"]), short_key("a.lr", ["a.lr", "b.lr"])
    ('lr', 'a.lr')
    """
    last = key.rpartition(".")[2]
    return last if [other.rpartition(".")[2] for other in keys].count(last) == 1 else key


def _metric(manifest: Manifest, found: Sequence[Result]) -> str:
    # the monitor; without a validation split, the same metric of the test or training split
    present = {name for result in finished(found) for name in result.metrics}
    name = manifest.monitor.partition("/")[2]
    possible = [manifest.monitor, *([f"test/{name}"] if manifest.test == "every" else []), f"train/{name}"]
    return next((metric for metric in possible if metric in present), manifest.monitor)


def _groups(manifest: Manifest, found: Sequence[Result], metric: str, summary: SweepSummary) -> list[JobGroup]:
    members: dict[str, list[Result]] = {}
    for result in found:
        members.setdefault(result.job.group, []).append(result)
    chosen = {selection.get("group") for selection in summary.selections}
    groups = []
    for key, jobs in members.items():
        # by repetition: a search may come to one point twice
        values = {r.job.replicate: r.metrics[metric] for r in finished(jobs) if metric in r.metrics}
        possible = range_of(metric, [r.summary for r in finished(jobs)])
        over = spread([*values.values()], higher_is_better=manifest.higher_is_better, possible=possible)
        groups.append(JobGroup(key, swept_label(manifest, jobs[0]), jobs, over, selected=key in chosen))
    if metric.startswith(TEST):
        return groups
    sign = -1 if manifest.higher_is_better else 1
    # incomplete groups last: the mean of the seeds that survived would flatter them. Ties go to the lower loss, as in a
    # selection.
    return sorted(groups, key=lambda g: (not g.complete, sign * g.spread.mean if g.spread.n else math.inf, _loss(g)))


def _loss(group: JobGroup) -> float:
    loss = group.spread_of("val/loss")
    return loss.mean if loss.n else math.inf
