"""Differences that hold at once: of several configurations, and of one that the same values selected.

The best of k groups is the best by merit and by luck. An interval that knows nothing of the choice calls 9 to 27 % of
the other groups worse where 5 to 50 groups are all alike. Here the 95 % intervals of all groups hold at once, whichever
was selected: their half width is the quantile of the largest studentised difference between the best of k simulated
groups and the others, none of which differ. For two groups that is Student's t, for many groups of one variance
Tukey's range.

A difference of few seeds has a standard deviation by chance far too small, which makes an interval for the worst case
useless: so two of them are calculated, and the narrower one counts. One takes each standard deviation as it is. The
other takes it as at least the median of all, which is what makes two or three seeds worth anything. The quantiles of
both are such that together they miss in one of twenty simulations. Groups of unequal variance need wider intervals:
half of the simulations have standard deviations that differ by factors of 1/e to e. docs/chance.md has the coverage.

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
    """The width that lets all differences hold at once; None for a single one, without a selection.

    A side that is given twice, as one of the others and as a rival, is the same object both times: it counts once.
    """
    pairs = [(first, other) for other in others]
    pairs += [(chosen, rival) for chosen, groups in rivals for rival in groups]
    groups = {id(side) for pair in pairs for side in pair}
    if len(groups) < 3:
        return None
    spreads = [found for one, other in pairs if math.isfinite(found := _sd(one, other))]
    typical = float(np.median(spreads)) if spreads else 0.0
    selected = any(len(among) > 1 for _, among in rivals)
    return JointLevel(partial(half_width, typical=typical, groups=len(groups), selected=selected), typical)


def half_widths(values: Array, *, groups: int, selected: bool, typical: float | None = None) -> Array:
    """Half the widths of the intervals of the means of differences [..., seeds], which hold at once.

    `typical` is their typical standard deviation, by default the median of all.
    """
    deviations = values.std(-1, ddof=1)
    typical = float(np.median(deviations)) if typical is None else typical
    width = partial(half_width, seeds=values.shape[-1], typical=typical, groups=groups, selected=selected)
    found: Array = np.vectorize(width, otypes=[float])(deviations)
    return found


def half_width(deviation: float, seeds: int, *, typical: float, groups: int, selected: bool) -> float:
    """Half the width of one interval of a mean difference, by its standard deviation."""
    floored, own = critical_values(groups, seeds, selected=selected)
    return min(floored * max(deviation, typical), own * deviation) / math.sqrt(seeds)


@cache
def critical_values(groups: int, seeds: int, *, selected: bool) -> tuple[float, float]:
    """The largest difference of groups that are alike, in standard errors that are (at least typical, their own).

    Neither is exceeded in 95 % of simulations. The differences are between one of the groups and each other one: the
    best one if `selected`, else any that was named before. Exact for two groups.

    >>> [round(value, 3) for value in critical_values(2, 5, selected=True)]
    [2.776, 2.776]
    >>> floored, own = critical_values(20, 3, selected=True)
    >>> 5 < floored < 8, own > 20
    (True, True)
    """
    if groups < 3:
        from scipy.special import stdtrit

        student = float(stdtrit(seeds - 1, (1 + LEVEL) / 2))
        return student, student
    times = min(MOST, max(FEWEST, VALUES // (groups * seeds)))
    equal, unequal = (_quantiles(groups, seeds, times, spread, selected=selected) for spread in (0.0, UNEQUAL))
    return max(equal[0], unequal[0]), max(equal[1], unequal[1])


def _quantiles(groups: int, seeds: int, times: int, unequal: float, *, selected: bool) -> tuple[float, float]:
    random = np.random.default_rng(0)  # a fixed seed: the same values have the same interval in every report
    chunks = []
    for start in range(0, times, CHUNK):
        size = min(CHUNK, times - start)
        values = random.normal(size=(size, groups, seeds)) * np.exp(unequal * random.normal(size=(size, groups, 1)))
        best = values.mean(2).argmin(1) if selected else np.zeros(size, dtype=int)
        others = np.arange(groups - 1)[None] + (np.arange(groups - 1)[None] >= best[:, None])
        rows = np.arange(size)[:, None]
        found = values[rows, others] - values[rows, best[:, None]]
        deviations, means = found.std(2, ddof=1), np.abs(found.mean(2))
        floored = np.maximum(deviations, np.median(deviations, 1, keepdims=True))
        chunks.append([(means / floored).max(1), (means / deviations).max(1)])
    largest = np.concatenate(chunks, 1)
    # one of both may be exceeded where the other is not: both at the rank that 95 % of the simulations stay below
    ranks = largest.argsort(1).argsort(1).max(0)
    place = min(times - 1, int(np.quantile(ranks, LEVEL, method="higher")))
    floored, own = np.sort(largest, 1)[:, place] * math.sqrt(seeds)
    return float(floored), float(own)


def _sd(one: Values[K], other: Values[K]) -> float:
    found = [one[seed] - other[seed] for seed in {*one} & {*other}]
    return sd(np.array([value for value in found if math.isfinite(value)]))
