"""Statistics over seeds: the spread of a metric, and the paired difference of two configurations.

A 95 % interval should cover the true mean in 95 of 100 experiments, with few seeds too. Simulated coverage
(`tests/analysis/test_statistics.py` repeats a part of it): percentile and BCa bootstraps of 3 values cover 75 %,
since they cannot leave the range of the values; of 10 values, 90 %. Hence Student's t for fewer than
`BOOTSTRAP_FROM` values, and a bootstrap with expanded percentiles from there on.

Source: T. Hesterberg, What teachers should know about the bootstrap (The American Statistician 69, 2015), 4.4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any, TypeVar

import numpy as np

# Simulated coverage of normal means: the expanded bootstrap 76 % at n = 3, 92 % at 5, 94 % at 8, 95 % at 10;
# Student's t 95 % at each. Of skewed (lognormal) means both cover 92 % at 10.
BOOTSTRAP_FROM = 10
LEVEL = 0.95
RESAMPLES = 10_000

K = TypeVar("K")
"""A seed, or what else pairs two runs."""


@dataclass(frozen=True)
class Spread:
    """A metric over `n` finite and `broken` other runs.

    `sd` is the sample standard deviation (divisor n-1), `low` to `high` the 95 % interval of the mean.
    All three are nan for one run. `worst` is nan if a run is broken: no finite value is the worst then.
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
    """Second minus first, paired over their `n` common seeds.

    `each` has the difference by seed, `low` to `high` the 95 % interval of their mean. Seeds with a value
    that is not finite are left out and counted in `broken`.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    each: Mapping[Any, float]
    higher_is_better: bool
    broken: int = 0

    @property
    def gain(self) -> float:
        """The mean difference, positive if the second is better."""
        return self.mean if self.higher_is_better else -self.mean

    @property
    def significant(self) -> bool | None:
        """True if the 95 % interval excludes zero, None without one."""
        return None if math.isnan(self.low) else self.low > 0 or self.high < 0


def spread(values: Sequence[float], *, higher_is_better: bool = False) -> Spread:
    """Summarise a metric over several runs.

    >>> found = spread([0.02, 0.04, 0.03, float("nan")])
    >>> found.n, found.broken, round(found.mean, 3), found.best, found.median
    (3, 1, 0.03, 0.02, 0.03)
    """
    given = np.asarray(values, dtype=np.float64)
    finite = given[np.isfinite(given)]
    broken = len(given) - len(finite)
    if not len(finite):
        nan = math.nan
        return Spread(0, nan, nan, nan, nan, nan, nan, nan, broken)
    low, high = confidence_interval(finite)
    ends = float(finite.min()), float(finite.max())
    best, worst = reversed(ends) if higher_is_better else ends
    return Spread(
        n=len(finite),
        mean=float(finite.mean()),
        sd=_sd(finite),
        worst=math.nan if broken else worst,
        median=float(np.median(finite)),
        best=best,
        low=low,
        high=high,
        broken=broken,
    )


def confidence_interval(values: Sequence[float] | np.ndarray[Any, Any], level: float = LEVEL) -> tuple[float, float]:
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
    from scipy.special import ndtr, stdtrit  # takes 0.12 s to import, which runs of one seed need not wait for

    t = float(stdtrit(n - 1, (1 + level) / 2))
    mean = float(given.mean())
    if n < BOOTSTRAP_FROM:
        half = t * _sd(given) / math.sqrt(n)
        return mean - half, mean + half
    tail = float(ndtr(-math.sqrt(n / (n - 1)) * t))
    # a fixed seed: the same values have the same interval in every report
    resampled = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    low, high = np.quantile(given[resampled].mean(1), [tail, 1 - tail])
    return float(low), float(high)


def interval_method(n: int) -> str:
    """The name of the method behind `confidence_interval` of `n` values."""
    return "Student's t" if n < BOOTSTRAP_FROM else f"bootstrap, {RESAMPLES:,} resamples"


def paired_difference(
    first: Mapping[K, float], second: Mapping[K, float], *, higher_is_better: bool = False
) -> Difference:
    """Second minus first, both by seed, over their common seeds.

    Pairing removes the effects of a seed on both sides: its data, their order, the initial weights.

    >>> found = paired_difference({0: 0.50, 1: 0.40, 2: 0.30}, {0: 0.45, 1: 0.35, 2: 0.25, 3: 0.9})
    >>> found.n, round(found.mean, 3), found.significant
    (3, -0.05, True)
    """
    differences = {seed: second[seed] - first[seed] for seed in sorted({*first} & {*second})}  # type: ignore[type-var]
    each = {seed: value for seed, value in differences.items() if math.isfinite(value)}
    values = np.array([*each.values()], dtype=np.float64)
    low, high = confidence_interval(values)
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


def describe_difference(found: Difference, *, metric: str, first: str = "the first", second: str = "the second") -> str:
    """A paired difference in a sentence, with its numbers.

    >>> found = paired_difference({0: 1.0, 1: 3.0}, {0: 2.0, 1: 2.0})
    >>> print(describe_difference(found, metric="val/loss", first="A", second="B"))
    No significant difference in val/loss between B and A: mean difference +0, 95 % interval -12.7 to +12.7 (2 seeds).
    """
    lost = ""
    if found.broken:
        seeds = "1 more seed has" if found.broken == 1 else f"{found.broken} more seeds have"
        lost = f" {seeds} no finite value."
    if found.n == 0:
        return f"{second} and {first} have no common seed with a finite {metric}.{lost}"
    by = f"{found.mean:+.3g}"
    if found.significant is None:
        return (
            f"{second} differs from {first} in {metric} by {by} on their one common seed. "
            f"One seed says nothing about seed noise.{lost}"
        )
    numbers = f"95 % interval {found.low:+.3g} to {found.high:+.3g} ({found.n} seeds).{lost}"
    if not any(found.each.values()):
        return f"{second} and {first} have the same {metric} on each of {found.n} seeds.{lost}"
    if not found.significant:
        return f"No significant difference in {metric} between {second} and {first}: mean difference {by}, {numbers}"
    word = "better" if found.gain > 0 else "worse"
    return f"{second} is {word} than {first} in {metric}: mean difference {by}, {numbers}"


def _sd(values: np.ndarray[Any, Any]) -> float:
    # `stdev` is exact before it rounds: equal values have sd 0, not the rounding error of their mean
    return stdev(values.tolist()) if len(values) > 1 else math.nan
