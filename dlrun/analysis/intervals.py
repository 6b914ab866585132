"""95 % intervals of a mean over few seeds.

An interval should cover the true mean in 95 of 100 experiments, with few seeds too: docs/chance.md has simulated
coverage, `tests/analysis` repeats a part. Percentile and BCa bootstraps of 3 values cover 75 %, since they cannot
leave the range of the values; of 10 values, 90 %. Hence Student's t for fewer than `BOOTSTRAP_FROM` values, and a
bootstrap with expanded percentiles from there on. Of positive skewed values both miss a mean that few of them carry, so
their interval reaches as far as that of a lognormal distribution.

Sources: T. Hesterberg, What teachers should know about the bootstrap (The American Statistician 69, 2015), 4.4.
U. Olsson, Confidence intervals for the mean of a log-normal distribution (Journal of Statistics Education 13, 2005).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import stdev
from typing import Any

import numpy as np

from dlrun.analysis.value_range import ANY, ValueRange

Array = np.ndarray[Any, Any]

# Simulated coverage of normal means: the expanded bootstrap 76 % at n = 3, 92 % at 5, 94 % at 8, 95 % at 10;
# Student's t 95 % at each. Of skewed (lognormal) means both cover 92 % at 10.
BOOTSTRAP_FROM = 10
LEVEL = 0.95
RESAMPLES = 10_000
DRAWN = 1 << 20
"""Values that are drawn at a time."""
ROUNDING = 1e-6
"""Relative differences up to this are rounding: evaluations with other batch sizes differ as much."""

VAGUE = 3.0
"""How far an interval may reach, in multiples of the largest value, and still say something about the mean."""


def confidence_interval(values: Sequence[float] | Array, level: float = LEVEL) -> tuple[float, float]:
    """The interval of the mean of n finite values.

    For n < `BOOTSTRAP_FROM`: mean ± t · sd / √n, with the quantile t of Student's t, n-1 degrees of freedom.
    From there on: quantiles of the means of `RESAMPLES` resamples, at the tail Φ(-√(n/(n-1)) · t) instead of
    (1 - level)/2, which widens them as much as the percentile method is too narrow at n. (nan, nan) for n < 2.

    >>> [round(end, 3) for end in confidence_interval([1.0, 2.0, 3.0])]      # 2 ± 4.303 · 1 / √3
    [-0.484, 4.484]
    """
    given = np.asarray(values, dtype=np.float64)
    n = len(given)
    if n < 2:
        return math.nan, math.nan
    if n < BOOTSTRAP_FROM:
        return student(float(given.mean()), sd(given), n, level)
    from scipy.special import ndtr, stdtrit  # takes 0.12 s to import, which runs of one seed need not wait for

    t = float(stdtrit(n - 1, (1 + level) / 2))
    tail = float(ndtr(-math.sqrt(n / (n - 1)) * t))
    # a fixed seed: the same values have the same interval in every report
    low, high = np.quantile(_resampled_means(given.tobytes()), [tail, 1 - tail])
    return float(low), float(high)


@lru_cache(maxsize=64)
def _resampled_means(values: bytes) -> Array:
    """The means of `RESAMPLES` resamples of float64 values; a report asks for those of a metric several times."""
    given = np.frombuffer(values)
    n, rng = len(given), np.random.default_rng(0)
    # some at a time, which draws the same ones: all resamples of 10,000 values take 1.6 GB
    rows = max(1, DRAWN // n)
    sizes = [min(rows, RESAMPLES - done) for done in range(0, RESAMPLES, rows)]
    means: Array = np.concatenate([given[rng.integers(0, n, (size, n))].mean(1) for size in sizes])
    return means


def mean_interval(values: Array, possible: ValueRange = ANY) -> tuple[float, float]:
    """The 95 % interval of the mean of a metric's finite values, within what is possible.

    (nan, nan) for one value, and for values that the seeds do not vary. Values that count samples vary by a step of
    rounding at least.

    >>> [round(end, 3) for end in mean_interval(np.array([0.01, 0.0, 0.02]), ValueRange(least=0.0, most=1.0))]
    [0.0, 0.035]
    """
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    own, floor = sd(values), possible.step(values.tolist()) / math.sqrt(12)  # of a uniform rounding error
    if own < floor:
        low, high = student(float(values.mean()), floor, n)
    elif own <= ROUNDING * float(np.abs(values).max()):
        return math.nan, math.nan
    else:
        low, high = confidence_interval(values)
        # a share of nearly one is skewed as the share of the others is
        if math.isfinite(possible.most) and values.mean() > (possible.least + possible.most) / 2:
            below, above = _lognormal(possible.most - values)
            low, high = min(low, possible.most - above), max(high, possible.most - below)
        else:
            start = possible.least if math.isfinite(possible.least) else 0.0
            below, above = _lognormal(values - start)
            low, high = min(low, start + below), max(high, start + above)
    return possible.clip(low, high)


def is_vague(values: Array, low: float, high: float, possible: ValueRange = ANY) -> bool:
    """Whether an interval of the mean says nothing: its values are too few, so scattered as they are.

    It reaches far beyond them, or over all that is possible.

    >>> values = np.array([0.013, 0.02, 0.1, 0.6, 1.7])
    >>> is_vague(values, *mean_interval(values, ValueRange(least=0.0))), is_vague(values, 0.0, 2.0)
    (True, False)
    """
    if math.isnan(low) or values.min() == values.max():
        return False
    if math.isfinite(possible.most - possible.least) and low <= possible.least and high >= possible.most:
        return True
    if math.isfinite(possible.most) and values.mean() > (possible.least + possible.most) / 2:
        return possible.most - low > VAGUE * (possible.most - float(values.min()))
    start = possible.least if math.isfinite(possible.least) else 0.0
    return bool(values.min() >= start and high - start > VAGUE * (float(values.max()) - start))


def _lognormal(values: Array) -> tuple[float, float]:
    """The interval of the mean of lognormal values, by Cox's method with Student's t.

    An empty one if a value is not positive.
    """
    if values.min() <= 0:
        return math.inf, -math.inf
    n, logs = len(values), np.log(values)
    variance = sd(logs) ** 2
    # log of the mean is mean + variance / 2 of the logs
    error = math.sqrt(variance / n + variance**2 / (2 * (n - 1)))
    low, high = student(float(logs.mean()) + variance / 2, error * math.sqrt(n), n)
    with np.errstate(over="ignore"):
        return float(np.exp(low)), float(np.exp(high))


def student(mean: float, deviation: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Mean ± t · deviation / √n."""
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, (1 + level) / 2)) * deviation / math.sqrt(n)
    return mean - half, mean + half


def interval_method(n: int) -> str:
    """The name of the method behind `confidence_interval` of `n` values."""
    return "Student's t" if n < BOOTSTRAP_FROM else f"bootstrap, {RESAMPLES:,} resamples"


def sd(values: Array) -> float:
    """The sample standard deviation; nan for one value."""
    # `stdev` is exact before it rounds: equal values have sd 0, not the rounding error of their mean
    return stdev(values.tolist()) if len(values) > 1 else math.nan
