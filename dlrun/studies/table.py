"""A metric of the runs by the value of a swept key and by the seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dlrun.storage.results import Result

MetricTable = dict[Any, dict[Any, float]]
"""A metric by swept value, then by seed."""


def tabulate(results: Sequence[Result], key: str, metric: Callable[[Result], float | None] | str) -> MetricTable:
    """Tabulate a metric by `key` and seed.

    `metric` is a name (`val/error`) or a function of the run. Runs without the metric are left out. Numbers ascend.
    """
    found: MetricTable = {}
    for result in results:
        value = result.metrics.get(metric) if isinstance(metric, str) else metric(result)
        if value is not None:
            found.setdefault(result.value(key), {})[result.job.replicate] = float(value)
    # names keep the order of the jobs
    return dict(sorted(found.items())) if all(isinstance(v, int | float) for v in found) else found


def common_seeds(table: MetricTable) -> list[Any]:
    """The seeds that all values have.

    >>> common_seeds({1: {0: 0.5, 1: 0.4}, 2: {1: 0.3, 2: 0.2}})
    [1]
    """
    return sorted(set.intersection(*(set(row) for row in table.values()))) if table else []


def means(table: MetricTable, seeds: Sequence[Any] | None = None) -> dict[Any, float]:
    """The mean over the seeds by value.

    >>> means({1: {0: 0.5, 1: 0.25}, 2: {0: float("nan")}})
    {1: 0.375, 2: inf}
    """
    return {value: _mean([row[s] for s in (row if seeds is None else seeds)]) for value, row in table.items()}


def medians(table: MetricTable) -> dict[Any, float]:
    return {value: float(np.median([*row.values()])) for value, row in table.items()}


def all_values(tables: Mapping[str, MetricTable]) -> list[float]:
    """All entries of some tables.

    >>> all_values({"training": {1: {0: 0.5}}, "test": {1: {0: 0.6}, 2: {0: 0.7}}})
    [0.5, 0.6, 0.7]
    """
    return [value for table in tables.values() for row in table.values() for value in row.values()]


def argmin(values: Mapping[Any, float]) -> Any:
    """The key of the least value, the first of several."""
    return min(values, key=lambda key: values[key])


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation; nan for a constant side.

    >>> rank_correlation([0.0, 0.1, 1.0], [5.0, 3.0, 2.0])
    -1.0
    """
    a, b = _ranks(x), _ranks(y)
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float((a @ a) * (b @ b)))
    # rounded: an exact order is 1.0, so that a threshold of 1 can be met
    return round(float(a @ b) / size, 12) if size else math.nan


def _mean(values: Sequence[float]) -> float:
    # a value that diverges on one seed must never be the best
    return float(np.mean(values)) if values and np.isfinite(values).all() else math.inf


def _ranks(values: Sequence[float]) -> np.ndarray[Any, Any]:
    given = np.asarray(values, dtype=np.float64)
    # ties share their mean rank
    return np.array([(given < v).sum() + ((given == v).sum() - 1) / 2 for v in given])
