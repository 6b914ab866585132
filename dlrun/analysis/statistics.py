"""Seeds as evidence: what a metric came to over several runs, and whether two ways differ by more than chance.

The interval of a mean is meant to hold the true mean 95 times out of 100, with few seeds too. Which
method does was tried by simulation (`tests/analysis/test_statistics.py` keeps a part of it): a percentile or BCa
bootstrap of three values holds it 75 times only, since it cannot leave their range, and of ten 90 times.
So it is Student's t below `BOOTSTRAPPED` values, and from there on the bootstrap with its percentiles
moved out by what the percentile method lacks at that size.

Source: T. Hesterberg, What teachers should know about the bootstrap (The American Statistician 69, 2015), 4.4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any

import numpy as np

BOOTSTRAPPED = 10
"""From this many values on an interval is a bootstrap's."""
LEVEL = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True)
class Spread:
    """A metric over `n` runs. What is not finite (`broken` more runs) is in no number of it but `worst`.

    `sd` is the sample standard deviation (nan for one run); `low` and `high` the 95 % interval of the
    mean (nan for one run). With a broken run `worst` is nan: no finite value was the worst.
    """

    n: int
    mean: float
    sd: float
    worst: float
    median: float
    best: float
    low: float
    high: float
    broken: int = 0


@dataclass(frozen=True)
class Difference:
    """The second minus the first, over the `n` seeds that both have.

    `each` has the difference by seed; `gain` is the mean difference in the direction that is better.
    `broken` seeds, on which a value is not finite, are left out.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    each: Mapping[int, float]
    higher_is_better: bool
    broken: int = 0

    @property
    def gain(self) -> float:
        """Return by how much the second is better (negative: worse)."""
        return self.mean if self.higher_is_better else -self.mean

    @property
    def told_apart(self) -> bool | None:
        """Return whether the interval excludes zero; None if there are too few seeds for an interval."""
        return None if math.isnan(self.low) else self.low > 0 or self.high < 0


def spread(values: Sequence[float], *, higher_is_better: bool = False) -> Spread:
    """Return what a metric came to over several runs.

    >>> found = spread([0.02, 0.04, 0.03, float("nan")])
    >>> found.n, found.broken, round(found.mean, 3), found.best, found.median
    (3, 1, 0.03, 0.02, 0.03)
    """
    given = np.asarray(values, dtype=np.float64)
    kept = given[np.isfinite(given)]
    broken = len(given) - len(kept)
    if not len(kept):
        nan = math.nan
        return Spread(0, nan, nan, nan, nan, nan, nan, nan, broken)
    low, high = interval(kept)
    ends = float(kept.min()), float(kept.max())
    best, worst = reversed(ends) if higher_is_better else ends
    return Spread(
        n=len(kept),
        mean=float(kept.mean()),
        sd=_sd(kept),
        worst=math.nan if broken else worst,
        median=float(np.median(kept)),
        best=best,
        low=low,
        high=high,
        broken=broken,
    )


def interval(values: Sequence[float] | np.ndarray[Any, Any], level: float = LEVEL) -> tuple[float, float]:
    """Return the interval of the mean of finite values, the same for the same values; (nan, nan) for fewer than two.

    >>> [round(end, 3) for end in interval([1.0, 2.0, 3.0])]      # 2 ± 4.303 · 1 / √3
    [-0.484, 4.484]
    """
    given = np.asarray(values, dtype=np.float64)
    n = len(given)
    if n < 2:
        return math.nan, math.nan
    from scipy.special import ndtr, stdtrit  # an eighth of a second, which runs of one seed need not wait for

    t = float(stdtrit(n - 1, (1 + level) / 2))
    mean = float(given.mean())
    if n < BOOTSTRAPPED:
        half = t * _sd(given) / math.sqrt(n)
        return mean - half, mean + half
    tail = float(ndtr(-math.sqrt(n / (n - 1)) * t))
    chosen = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    low, high = np.quantile(given[chosen].mean(1), [tail, 1 - tail])
    return float(low), float(high)


def method(n: int) -> str:
    """Return how `interval` finds the interval of `n` values, as a report says it."""
    return "Student's t" if n < BOOTSTRAPPED else f"bootstrap, {RESAMPLES:,} resamples"


def paired(first: Mapping[int, float], second: Mapping[int, float], *, higher_is_better: bool = False) -> Difference:
    """Return the second minus the first over their common seeds; both are values by seed.

    What a seed does to both alike (its data, its order, its initial weights) drops out of the difference.

    >>> found = paired({0: 0.50, 1: 0.40, 2: 0.30}, {0: 0.45, 1: 0.35, 2: 0.25, 3: 0.9})
    >>> found.n, round(found.mean, 3), found.told_apart
    (3, -0.05, True)
    """
    differences = {seed: second[seed] - first[seed] for seed in sorted({*first} & {*second})}
    each = {seed: value for seed, value in differences.items() if math.isfinite(value)}
    values = np.array([*each.values()], dtype=np.float64)
    low, high = interval(values)
    return Difference(
        n=len(each),
        mean=float(values.mean()) if each else math.nan,
        sd=_sd(values),
        low=low,
        high=high,
        each=each,
        higher_is_better=higher_is_better,
        broken=len(differences) - len(each),
    )


def verdict(found: Difference, *, metric: str, first: str = "the first", second: str = "the second") -> str:
    """Return in words what a paired difference says, with its numbers.

    >>> print(verdict(paired({0: 1.0, 1: 3.0}, {0: 2.0, 1: 2.0}), metric="val/loss", first="A", second="B"))
    B and A cannot be told from seed noise in val/loss: the mean difference is +0, its 95 % interval -12.7 to +12.7
    (2 seeds).
    """
    lost = f" {found.broken} more had no finite value." if found.broken else ""
    if found.n == 0:
        return f"{second} and {first} have no common seed with a finite {metric}.{lost}"
    by = f"{found.mean:+.3g}"
    if found.told_apart is None:
        return (
            f"{second} differs from {first} in {metric} by {by} on the one common seed, which says nothing about "
            f"seed noise.{lost}"
        )
    numbers = f"its 95 % interval {found.low:+.3g} to {found.high:+.3g} ({found.n} seeds).{lost}"
    if not any(found.each.values()):
        return f"{second} and {first} have the same {metric} on each of {found.n} seeds.{lost}"
    if not found.told_apart:
        return (
            f"{second} and {first} cannot be told from seed noise in {metric}: the mean difference is {by}, {numbers}"
        )
    word = "better" if found.gain > 0 else "worse"
    return f"{second} is {word} than {first} in {metric}: by {by} in the mean, {numbers}"


def _sd(values: np.ndarray[Any, Any]) -> float:
    # exact before it is rounded: of equal values it is 0, not what is left of rounding their mean
    return stdev(values.tolist()) if len(values) > 1 else math.nan
