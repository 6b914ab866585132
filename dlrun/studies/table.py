"""A metric of the runs as a study reads it: by the value of a swept key, and by the seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dlrun.storage.results import Result

Table = dict[Any, dict[int, float]]
"""A metric by the value of a swept key, then by the seed."""


def by_value(results: Sequence[Result], key: str, metric: Callable[[Result], float | None] | str) -> Table:
    """Return a metric of the runs by their value of `key`, numbers ascending, and by their seed.

    `metric` is a name (`val/error`), or a function of the run. Runs that do not have it are left out.
    """
    found: Table = {}
    for result in results:
        value = result.metrics.get(metric) if isinstance(metric, str) else metric(result)
        if value is not None:
            found.setdefault(result.value(key), {})[result.job.seed] = float(value)
    return dict(sorted(found.items())) if all(isinstance(v, int | float) for v in found) else found


def common(table: Table) -> list[int]:
    """Return the seeds that every value has.

    >>> common({1: {0: 0.5, 1: 0.4}, 2: {1: 0.3, 2: 0.2}})
    [1]
    """
    return sorted(set.intersection(*(set(row) for row in table.values()))) if table else []


def means(table: Table, seeds: Sequence[int] | None = None) -> dict[Any, float]:
    """Return the mean over the seeds by value; what is not finite makes its mean infinite.

    >>> means({1: {0: 0.5, 1: 0.25}, 2: {0: float("nan")}})
    {1: 0.375, 2: inf}
    """
    return {value: _mean([row[s] for s in (row if seeds is None else seeds)]) for value, row in table.items()}


def medians(table: Table) -> dict[Any, float]:
    """Return the median over the seeds by value."""
    return {value: float(np.median([*row.values()])) for value, row in table.items()}


def values(tables: Mapping[str, Table]) -> list[float]:
    """Return every value of some tables.

    >>> values({"training": {1: {0: 0.5}}, "test": {1: {0: 0.6}, 2: {0: 0.7}}})
    [0.5, 0.6, 0.7]
    """
    return [value for table in tables.values() for row in table.values() for value in row.values()]


def least(values: Mapping[Any, float]) -> Any:
    """Return the key of the smallest value, the first of several."""
    return min(values, key=lambda key: values[key])


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Spearman's rank correlation, equal values sharing their mean rank; nan without variation.

    >>> rank_correlation([0.0, 0.1, 1.0], [5.0, 3.0, 2.0])
    -1.0
    """
    a, b = _ranks(x), _ranks(y)
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float((a @ a) * (b @ b)))
    return round(float(a @ b) / size, 12) if size else math.nan


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values and np.isfinite(values).all() else math.inf


def _ranks(values: Sequence[float]) -> np.ndarray[Any, Any]:
    given = np.asarray(values, dtype=np.float64)
    return np.array([(given < v).sum() + ((given == v).sum() - 1) / 2 for v in given])
