"""Statistics over seeds: the spread of a metric, and the paired difference of two configurations.

Differences of several configurations at once, and of one that its values selected, are in `analysis/simultaneous`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from dlrun.analysis.intervals import (
    BOOTSTRAP_FROM,
    LEVEL,
    ROUNDING,
    confidence_interval,
    interval_method,
    is_vague,
    mean_interval,
    student,
)
from dlrun.analysis.intervals import sd as standard_deviation
from dlrun.analysis.value_range import ANY, ValueRange

__all__ = [
    "BOOTSTRAP_FROM",
    "LEVEL",
    "Difference",
    "JointLevel",
    "Spread",
    "confidence_interval",
    "describe_difference",
    "interval_method",
    "paired_difference",
    "spread",
]

K = TypeVar("K")
"""A seed, or what else pairs two runs."""


@dataclass(frozen=True)
class Spread:
    """A metric over `n` finite and `broken` other runs.

    `sd` is the sample standard deviation (divisor n-1), `low` to `high` the 95 % interval of the mean. All three are
    nan for one run, and the interval if the seeds do not vary the value. `worst` is nan if a run is broken: no finite
    value is the worst then. `vague` says that the values are too few to tell their mean: the interval is right, and so
    wide that it says nothing.
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
    vague: bool = False


@dataclass(frozen=True)
class JointLevel:
    """How wide intervals have to be to hold at once.

    `half_width` maps a standard deviation and a number of seeds to half the width. `sd` is a typical standard deviation
    of a difference.
    """

    half_width: Callable[[float, int], float]
    sd: float = 0.0


@dataclass(frozen=True)
class Difference:
    """Second minus first, paired over their `n` common seeds.

    `each` has the difference by seed, `low` to `high` the 95 % interval of their mean; nan for one seed, or if the
    difference is the same on every seed. Seeds with a value that is not finite are left out and counted in `broken`.
    `vague` says that the interval holds any difference that values of this size can have.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    each: Mapping[Any, float]
    higher_is_better: bool
    broken: int = 0
    vague: bool = False

    def __neg__(self) -> Difference:
        """First minus second."""
        each = {seed: -value for seed, value in self.each.items()}
        return replace(self, mean=-self.mean, low=-self.high, high=-self.low, each=each)

    @property
    def gain(self) -> float:
        """The mean difference, positive if the second is better."""
        return self.mean if self.higher_is_better else -self.mean

    @property
    def significant(self) -> bool | None:
        """True if the 95 % interval excludes zero, None without one.

        True, too, if three or more seeds have the same difference.
        """
        if self.constant and self.n > 2:
            return self.mean != 0
        return None if math.isnan(self.low) else self.low > 0 or self.high < 0

    @property
    def constant(self) -> bool:
        """The seeds do not vary the difference."""
        return self.n > 1 and math.isnan(self.low)


def spread(values: Sequence[float], *, higher_is_better: bool = False, possible: ValueRange = ANY) -> Spread:
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
    low, high = mean_interval(finite, possible)
    ends = float(finite.min()), float(finite.max())
    best, worst = reversed(ends) if higher_is_better else ends
    return Spread(
        n=len(finite),
        mean=float(finite.mean()),
        sd=standard_deviation(finite),
        worst=math.nan if broken else worst,
        median=float(np.median(finite)),
        best=best,
        low=low,
        high=high,
        broken=broken,
        vague=is_vague(finite, low, high, possible),
    )


def paired_difference(
    first: Mapping[K, float],
    second: Mapping[K, float],
    *,
    higher_is_better: bool = False,
    possible: ValueRange = ANY,
    joint: JointLevel | None = None,
) -> Difference:
    """Second minus first, both by seed, over their common seeds.

    Pairing removes the effects of a seed on both sides: its data, their order, the initial weights. `joint` widens the
    interval so that it holds together with others.

    >>> found = paired_difference({0: 0.50, 1: 0.41, 2: 0.30}, {0: 0.45, 1: 0.35, 2: 0.25, 3: 0.9})
    >>> found.n, round(found.mean, 3), found.significant
    (3, -0.053, True)
    """
    differences = {seed: second[seed] - first[seed] for seed in sorted({*first} & {*second})}  # type: ignore[type-var]
    each = {seed: value for seed, value in differences.items() if math.isfinite(value)}
    values = np.array([*each.values()], dtype=np.float64)
    sides = [side[seed] for seed in each for side in (first, second)]
    low, high = _difference_interval(values, sides, possible, joint)
    return Difference(
        n=len(each),
        mean=float(values.mean()) if each else math.nan,
        sd=standard_deviation(values),
        low=low,
        high=high,
        each=each,
        higher_is_better=higher_is_better,
        broken=len(differences) - len(each),
        vague=_holds_any(low, high, sides, possible),
    )


def _difference_interval(
    values: np.ndarray[Any, Any], sides: Sequence[float], possible: ValueRange, joint: JointLevel | None
) -> tuple[float, float]:
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    mean, sd = float(values.mean()), standard_deviation(values)
    # both sides are rounded to a step
    floor = possible.step(sides) / math.sqrt(6)
    if max(sd, floor, joint.sd if joint else 0.0) <= ROUNDING * max(map(abs, sides)):
        return math.nan, math.nan
    if joint:
        half = joint.half_width(max(sd, floor), n)
        low, high = mean - half, mean + half
    else:
        low, high = student(mean, floor, n) if sd < floor else confidence_interval(values)
    width = possible.most - possible.least  # two values are no further apart
    return max(low, -width), min(high, width)


def _holds_any(low: float, high: float, sides: Sequence[float], possible: ValueRange) -> bool:
    """Whether an interval of a difference reaches as far as the values themselves, both ways."""
    if math.isnan(low):
        return False
    least = possible.least if math.isfinite(possible.least) else 0.0
    # a share of nearly one is small as the share of the others
    scale = min(max(sides) - least, possible.most - min(sides))
    return min(sides) >= least and low <= -scale and high >= scale


def describe_difference(
    found: Difference, *, metric: str, first: str = "the first", second: str = "the second", over: str = "seed"
) -> str:
    """A paired difference in a sentence, with its numbers; `over` is the word for a repetition.

    >>> found = paired_difference({0: 1.0, 1: 3.0}, {0: 2.0, 1: 2.0})
    >>> print(describe_difference(found, metric="val/loss", first="A", second="B"))
    No significant difference in val/loss between B and A: mean difference +0, 95 % interval -12.7 to +12.7 (2 seeds:
    too few to tell).
    """
    lost = ""
    if found.broken:
        seeds = f"1 more {over} has" if found.broken == 1 else f"{found.broken} more {over}s have"
        lost = f" {seeds} no finite value."
    by = f"{found.mean:+.3g}"
    if found.n == 0:
        return f"{second} and {first} have no common {over} with a finite {metric}.{lost}"
    if found.n == 1:
        return (
            f"{second} differs from {first} in {metric} by {by} on their one common {over}. "
            f"One {over} says nothing about {over} noise.{lost}"
        )
    if not any(found.each.values()):
        return f"{second} and {first} have the same {metric} on each of {found.n} {over}s.{lost}"
    word = "better" if found.gain > 0 else "worse"
    if found.constant and found.n == 2:
        return f"{second} differs from {first} in {metric} by the same {by} on both {over}s, which says little.{lost}"
    if found.constant:  # whatever the seeds change, it is the same on both sides
        return f"{second} is {word} than {first} in {metric}, by the same {by} on each of {found.n} {over}s.{lost}"
    seeds = f"{found.n} {over}s{': too few to tell' if found.vague else ''}"
    numbers = f"95 % interval {found.low:+.3g} to {found.high:+.3g} ({seeds}).{lost}"
    if not found.significant:
        return f"No significant difference in {metric} between {second} and {first}: mean difference {by}, {numbers}"
    return f"{second} is {word} than {first} in {metric}: mean difference {by}, {numbers}"
