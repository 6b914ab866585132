"""A sweep as its report sees it: every job with its run, the groups from the best to the worst, the claims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dlrun.analysis.statistics import Spread, spread
from dlrun.storage.manifest import Manifest, read
from dlrun.storage.results import Result, finished, results
from dlrun.storage.summary import SweepSummary
from dlrun.storage.sweepdir import SweepDir

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class JobGroup:
    """The jobs that differ by nothing but the seed, and what the metric of choice came to over them."""

    key: str
    label: str
    results: Sequence[Result]
    spread: Spread
    selected: bool = False

    def short_label(self, keys: Sequence[str]) -> str:
        """Return the label that a figure has room for: the last part of each key with its value."""
        values = [(key, swept_value(self.results[0], key)) for key in keys]
        told = [f"{short_key(key, keys)}={f'{v:.4g}' if isinstance(v, float) else v}" for key, v in values]
        return ", ".join(told) or self.label

    @property
    def complete(self) -> bool:
        """Return whether every seed that was asked for has a finite value."""
        return self.spread.n == len(self.results)

    def by_seed(self, metric: str) -> dict[int, float]:
        """Return a metric's value of each finished run, by its seed."""
        return {r.job.seed: r.metrics[metric] for r in finished(self.results) if metric in r.metrics}

    def spread_of(self, metric: str, *, higher_is_better: bool = False) -> Spread:
        """Return what another metric came to."""
        return spread([*self.by_seed(metric).values()], higher_is_better=higher_is_better)


@dataclass(frozen=True)
class Overview:
    """Everything that a report says is found here. `metric` is what the groups are ordered by."""

    sweep: SweepDir
    manifest: Manifest
    results: Sequence[Result]
    groups: Sequence[JobGroup]
    metric: str
    summary: SweepSummary

    @cached_property
    def finished(self) -> list[Result]:
        """Return the jobs whose run finished."""
        return finished(self.results)

    @property
    def selected(self) -> JobGroup | None:
        """Return the group that was selected."""
        return next((group for group in self.groups if group.selected), None)

    @cached_property
    def ranked(self) -> list[JobGroup]:
        """Return the groups that have a value to be ordered by."""
        return [group for group in self.groups if group.spread.n]

    @property
    def swept(self) -> list[str]:
        """Return the keys that take more than one value, but the seed."""
        return [key for key in self.manifest.swept if key != "seed"]

    @property
    def test_reads(self) -> int:
        """Return how often the test split was read by the sweep's own runs; those of reused runs were another's."""
        return sum(r.summary.test_reads for r in self.results if not r.reused)


def read_overview(sweep: SweepDir) -> Overview:
    """Return what a sweep came to so far."""
    manifest = read(sweep)
    found = results(sweep, manifest)
    metric = _metric(manifest, found)
    summary = sweep.summary()
    return Overview(sweep, manifest, found, _groups(manifest, found, metric, summary), metric, summary)


def group_label(manifest: Manifest, result: Result) -> str:
    """Return what tells a job's group from the others: its overrides that vary, but the seed."""
    telling = [f"{k}={v}" for k, v in result.swept.items() if k in manifest.swept and k != "seed"]
    return " ".join(telling) or manifest.name


def swept_value(result: Result, key: str) -> Any:
    """Return the value that a job has of a swept key: a number, a truth or text.

    A choice of a group (`optimizer=sgd`) is its name, not the configuration that it stands for.
    """
    found = result.value(key)
    return found if isinstance(found, int | float | str) else result.swept.get(key, "null")


def short_key(key: str, keys: Sequence[str]) -> str:
    """Return the last part of a key, if no other of the keys ends with it.

    >>> short_key("optimizer.lr", ["optimizer.lr", "model.width"]), short_key("a.lr", ["a.lr", "b.lr"])
    ('lr', 'a.lr')
    """
    last = key.rpartition(".")[2]
    return last if [other.rpartition(".")[2] for other in keys].count(last) == 1 else key


def _metric(manifest: Manifest, found: Sequence[Result]) -> str:
    """Return the monitor; without a validation split the same of the test or the training split."""
    present = {name for result in finished(found) for name in result.metrics}
    name = manifest.monitor.partition("/")[2]
    possible = [manifest.monitor, *([f"test/{name}"] if manifest.test == "every" else []), f"train/{name}"]
    return next((metric for metric in possible if metric in present), manifest.monitor)


def _groups(manifest: Manifest, found: Sequence[Result], metric: str, summary: SweepSummary) -> list[JobGroup]:
    members: dict[str, list[Result]] = {}
    for result in found:
        members.setdefault(result.job.group, []).append(result)
    chosen = (summary.selected or {}).get("group")
    groups = []
    for key, jobs in members.items():
        values = [r.metrics[metric] for r in finished(jobs) if metric in r.metrics]
        over = spread(values, higher_is_better=manifest.higher_is_better)
        groups.append(JobGroup(key, group_label(manifest, jobs[0]), jobs, over, selected=key == chosen))
    sign = -1 if manifest.higher_is_better else 1
    # a group with a seed that broke is not ranked by those that did not
    return sorted(groups, key=lambda g: (not g.complete, sign * g.spread.mean if g.spread.n else math.inf, _loss(g)))


def _loss(group: JobGroup) -> float:
    """Return what decides between equal means, as it does when one is selected."""
    loss = group.spread_of("val/loss")
    return loss.mean if loss.n else math.inf
