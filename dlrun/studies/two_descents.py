"""A curve with two descents: its minimum, its peak and its second minimum, told from noise over the seeds.

`unit` is the word before a place in the evidence of a claim, such as "epoch ".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from dlrun.analysis.simultaneous import half_widths
from dlrun.studies.study import Claim, judge
from dlrun.studies.table import MetricTable, argmin, common_seeds, means
from dlrun.terminal.format import counted

Place = Literal["first", "before", "peak", "behind"]


@dataclass(frozen=True)
class Shape:
    """Start, first minimum, peak and second minimum of a curve."""

    first: Any
    before: Any
    peak: Any
    behind: Any


def shape(curve: dict[Any, float]) -> Shape | None:
    """Find the most prominent inner peak, with its minima.

    >>> shape({1: 0.5, 2: 0.2, 4: 0.4, 8: 0.1})
    Shape(first=1, before=2, peak=4, behind=8)
    """
    places = [*curve]
    found, height = None, -math.inf
    for i in range(1, len(places) - 1):
        before, behind = (argmin({place: curve[place] for place in side}) for side in (places[:i], places[i + 1 :]))
        # height over the higher of the two minima
        prominence = curve[places[i]] - max(curve[before], curve[behind])
        if prominence > height:
            found, height = Shape(places[0], before, places[i], behind), prominence
    return found


def falls(test: MetricTable, text: str, *, unit: str = "") -> Claim:
    """Held if the start is above the first minimum."""
    return _differs(test, text, lower="before", upper="first", unit=unit)


def rises(test: MetricTable, text: str, *, unit: str = "") -> Claim:
    """Held if the peak is above the first minimum."""
    return _differs(test, text, lower="before", upper="peak", unit=unit)


def falls_again(test: MetricTable, text: str, *, unit: str = "") -> Claim:
    """Held if the peak is above the second minimum."""
    return _differs(test, text, lower="behind", upper="peak", unit=unit)


def best_behind(test: MetricTable, text: str, *, unit: str = "") -> Claim:
    """Held if the second minimum is below the first."""
    return _differs(test, text, lower="behind", upper="before", unit=unit)


def falls_less(other: MetricTable, test: MetricTable, text: str, *, name: str, unit: str = "") -> Claim:
    """Held if from peak to second minimum of `test`, the curve `other` falls by less.

    `name` is what `other` is of. Both are compared at the same places, seed by seed. Undecided if `test` itself has no
    second descent.
    """
    shared = [place for place in test if place in other]
    seeds = common_seeds({(i, p): table[p] for p in shared for i, table in enumerate((test, other))})
    if len(shared) < 4 or len(seeds) < 3:
        return judge(text, None, f"It takes four common points and three common seeds of {name}.")
    whole = {place: test[place] for place in shared}
    found = shape(means(whole, seeds))
    difference = {place: {seed: test[place][seed] - other[place][seed] for seed in seeds} for place in shared}
    if found is None or not all(math.isfinite(value) for row in difference.values() for value in row.values()):
        return judge(text, None, "A value is no finite number.")
    if any(interval(whole, seeds, lower=low, upper=found.peak)[0] <= 0 for low in (found.before, found.behind)):
        return judge(text, None, "It takes a rise and a second descent that chance does not explain.")
    fall, its = (_mean_fall(table, found, seeds) for table in (test, other))
    low, high = interval(difference, seeds, lower=found.behind, upper=found.peak)
    evidence = (
        f"From {unit}{found.peak} to {found.behind} it changes by {-fall:+.4g}, that of {name} by {-its:+.4g} (means "
        f"of {counted(len(seeds), 'seed')}). Difference {fall - its:+.4g}, 95 % interval {low:+.3g} to {high:+.3g}, "
        f"for all pairs of {len(shared)} at once."
    )
    return judge(text, True if low > 0 else False if high <= 0 else None, evidence)


def _mean_fall(table: MetricTable, found: Shape, seeds: Sequence[Any]) -> float:
    return float(np.mean([table[found.peak][seed] - table[found.behind][seed] for seed in seeds]))


def _differs(test: MetricTable, text: str, *, lower: Place, upper: Place, unit: str) -> Claim:
    """Held if `upper` is significantly above `lower`.

    The 95 % interval of the difference is above zero; below zero, the claim is not held. The places were chosen by the
    same values, among which noise alone has a peak. So the interval holds at once for all pairs of places.
    """
    seeds = common_seeds(test)
    # start, first minimum, peak and second minimum
    if len(test) < 4 or len(seeds) < 3:
        return judge(text, None, "It takes four points of the curve and three common seeds.")
    curve = means(test, seeds)
    found = shape(curve)
    # a value that is not finite
    if found is None:
        return judge(text, None, "No point inside the range has a finite error.")
    low, high = interval(test, seeds, lower=getattr(found, lower), upper=getattr(found, upper))
    a, b = getattr(found, lower), getattr(found, upper)
    evidence = (
        f"{curve[a]:.4g} at {unit}{a} and {curve[b]:.4g} at {unit}{b} (means of {counted(len(seeds), 'seed')}). "
        f"Difference {curve[b] - curve[a]:+.4g}, 95 % interval {low:+.3g} to {high:+.3g}, for all pairs of "
        f"{len(test)} at once."
    )
    # without a rise there is no minimum before it
    if lower == "before" and upper == "first":
        least, most = interval(test, seeds, lower=found.before, upper=found.peak)
        if most <= 0:
            rise = f"the peak, at {unit}{found.peak}, minus it: {least:+.3g} to {most:+.3g}"
            return judge(text, None, f"{evidence} The error does not rise behind it ({rise}).")
    return judge(text, True if low > 0 else False if high <= 0 else None, evidence)


def interval(test: MetricTable, seeds: Sequence[Any], *, lower: Any, upper: Any) -> tuple[float, float]:
    """The 95 % interval of the difference of two places, whichever of all pairs they are."""
    if lower == upper:
        return 0.0, 0.0
    rows = {place: np.array([row[seed] for seed in seeds]) for place, row in test.items()}
    pairs = np.array([rows[b] - rows[a] for a, b in combinations(rows, 2)])
    finite = pairs[np.isfinite(pairs).all(1)]
    difference = rows[upper] - rows[lower]
    typical = float(np.median(finite.std(1, ddof=1))) if len(finite) else 0.0
    half = float(half_widths(difference, groups=len(test), selected=True, typical=typical))
    return float(difference.mean()) - half, float(difference.mean()) + half
