"""Differences that hold at once: of several configurations, and of one that the same values selected.

The best of k groups is the best by merit and by luck. An interval that knows nothing of the choice calls 9 to 27 % of
the other groups worse where 5 to 50 groups are all alike. Here the 95 % intervals of all groups hold at once, whichever
was selected: their half width is the quantile of the largest studentised difference between the best of k simulated
groups and the others, none of which differ. For two groups that is Student's t, for many groups of one variance
Tukey's range.

A difference of few seeds has a standard deviation by chance far too small. So each is at least the median of all of
them, which is what makes two or three seeds worth anything. Groups of unequal variance need a wider interval: half of
the simulations have standard deviations that differ by factors of 1/e to e. docs/chance.md has what this covers.

Sources: J. Hsu, Multiple Comparisons (1996), chapters 4 and 5. V. Tusher et al., Significance analysis of microarrays
(PNAS 98, 2001), for the least standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np

from dlrun.analysis.intervals import LEVEL, sd
from dlrun.analysis.statistics import Difference, JointLevel, paired_difference
from dlrun.analysis.value_range import ANY, ValueRange

K = TypeVar("K")
Values = Mapping[K, float]
Array = np.ndarray[Any, np.dtype[np.float64]]

# Simulated values of a critical value, and bounds of the simulated sweeps that they make
VALUES, FEWEST, MOST = 4_000_000, 2_000, 20_000
CHUNK = 500
UNEQUAL = 0.5
"""The standard deviation of the log of the groups' standard deviations, where they differ."""


def differences(
    first: Values[K],
    others: Sequence[Values[K]],
    *,
    rivals: Sequence[tuple[Values[K], Sequence[Values[K]]]] = (),
    higher_is_better: bool = False,
    possible: ValueRange = ANY,
) -> list[Difference]:
    """Each other side minus the first, paired by seed; all intervals hold at once.

    `rivals` has, for each side that was selected by these values, the side and the groups that it was selected among.

    >>> a, b, c = ({seed: mean + 0.1 * (seed * seed % 7) for seed in range(5)} for mean in (1.0, 1.01, 5.0))
    >>> b[0] += 0.05
    >>> [found.significant for found in differences(a, [b, c], rivals=[(a, [b, c])])]
    [False, True]
    """
    level = joint_level(first, others, rivals)
    make = partial(paired_difference, first, higher_is_better=higher_is_better, possible=possible, joint=level)
    return [make(other) for other in others]


def joint_level(
    first: Values[K], others: Sequence[Values[K]], rivals: Sequence[tuple[Values[K], Sequence[Values[K]]]] = ()
) -> JointLevel | None:
    """The width that lets all differences hold at once; None for a single one, without a selection."""
    pairs = [(first, other) for other in others]
    pairs += [(chosen, rival) for chosen, groups in rivals for rival in groups]
    groups = {id(side) for pair in pairs for side in pair}
    if len(groups) < 3:
        return None
    spreads = [found for one, other in pairs if math.isfinite(found := _sd(one, other))]
    selected = any(len(among) > 1 for _, among in rivals)
    critical = partial(critical_value, len(groups), selected=selected)
    return JointLevel(critical, float(np.median(spreads)) if spreads else 0.0)


@cache
def critical_value(groups: int, seeds: int, *, selected: bool) -> float:
    """The largest difference of groups that are alike, in standard errors: its 95 % quantile.

    The differences are between one of the groups and each other one: the best one if `selected`, else any that was
    named before. Exact for two groups.

    >>> round(critical_value(2, 5, selected=True), 3), critical_value(20, 5, selected=True) > 3.5
    (2.776, True)
    """
    if groups < 3:
        from scipy.special import stdtrit

        return float(stdtrit(seeds - 1, (1 + LEVEL) / 2))
    times = min(MOST, max(FEWEST, VALUES // (groups * seeds)))
    return max(_quantile(groups, seeds, times, unequal, selected=selected) for unequal in (0.0, UNEQUAL))


def standard_errors(values: Array, *, least: float | None = None) -> Array:
    """The standard errors of the means of differences [..., seeds], those of few seeds not too small.

    Each standard deviation is at least `least`, by default the median of all.
    """
    deviations = values.std(-1, ddof=1)
    floor = np.median(deviations) if least is None else least
    found: Array = np.maximum(deviations, floor) / math.sqrt(values.shape[-1])
    return found


def _quantile(groups: int, seeds: int, times: int, unequal: float, *, selected: bool) -> float:
    random = np.random.default_rng(0)  # a fixed seed: the same values have the same interval in every report
    largest = []
    for start in range(0, times, CHUNK):
        size = min(CHUNK, times - start)
        values = random.normal(size=(size, groups, seeds)) * np.exp(unequal * random.normal(size=(size, groups, 1)))
        best = values.mean(2).argmin(1) if selected else np.zeros(size, dtype=int)
        others = np.arange(groups - 1)[None] + (np.arange(groups - 1)[None] >= best[:, None])
        rows = np.arange(size)[:, None]
        found = values[rows, others] - values[rows, best[:, None]]
        deviations = found.std(2, ddof=1)
        deviations = np.maximum(deviations, np.median(deviations, 1, keepdims=True))
        largest.append((np.abs(found.mean(2)) / deviations).max(1))
    return float(np.quantile(np.concatenate(largest), LEVEL)) * math.sqrt(seeds)


def _sd(one: Values[K], other: Values[K]) -> float:
    found = [one[seed] - other[seed] for seed in {*one} & {*other}]
    return sd(np.array([value for value in found if math.isfinite(value)]))
