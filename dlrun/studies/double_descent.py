"""Double descent: the test error falls, rises near the interpolation threshold, falls again (Belkin et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrun.analysis.figures.scale import plain_ticks
from dlrun.analysis.figures.style import BLACK, figure, style_context
from dlrun.analysis.simultaneous import half_widths
from dlrun.storage.results import Result
from dlrun.studies.seed_bands import draw_tables
from dlrun.studies.study import CaptionedFigure, Claim, judge
from dlrun.studies.table import MetricTable, argmin, common_seeds, means, tabulate
from dlrun.terminal.format import counted

__all__ = ["DoubleDescent"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class DoubleDescent:
    """The test `metric` over the capacity `key` has two descents.

    It falls, peaks, falls again, and ends below the first minimum.
    """

    key: str = "model.width"
    metric: str = "error"

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        test = tabulate(results, self.key, f"test/{self.metric}")
        return [
            falls(test, f"The test {self.metric} falls at first."),
            rises(test, f"The test {self.metric} rises towards the threshold."),
            falls_again(test, f"The test {self.metric} falls again behind it."),
            best_behind(test, f"The best wide model has a smaller test {self.metric} than the best narrow one."),
        ]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        tables = {word: tabulate(results, self.key, f"{split}/{self.metric}") for word, split in _WORDS.items()}
        tables = {word: table for word, table in tables.items() if table}
        if "test" in tables:
            caption = f"Training and test {self.metric} against {self.key}: median and range over the seeds."
            yield CaptionedFigure("double_descent", draw(tables, self.key, self.metric), caption)


_WORDS = {"test": "test", "training": "train"}


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


def falls(test: MetricTable, text: str) -> Claim:
    """Held if the start is above the first minimum."""
    return _differs(test, text, lower="before", upper="first")


def rises(test: MetricTable, text: str) -> Claim:
    """Held if the peak is above the first minimum."""
    return _differs(test, text, lower="before", upper="peak")


def falls_again(test: MetricTable, text: str) -> Claim:
    """Held if the peak is above the second minimum."""
    return _differs(test, text, lower="behind", upper="peak")


def best_behind(test: MetricTable, text: str) -> Claim:
    """Held if the second minimum is below the first."""
    return _differs(test, text, lower="behind", upper="before")


def _differs(test: MetricTable, text: str, *, lower: str, upper: str) -> Claim:
    """Held if `upper` is significantly above `lower`.

    The 95 % interval of the difference is above zero; below zero, the claim is not held. The places were chosen by the
    same values, among which noise alone has a peak. So the interval holds at once for all pairs of capacities.
    """
    seeds = common_seeds(test)
    # start, first minimum, peak and second minimum
    if len(test) < 4 or len(seeds) < 3:
        return judge(text, None, "It takes four capacities and three common seeds.")
    curve = means(test, seeds)
    found = shape(curve)
    # a value that is not finite
    if found is None:
        return judge(text, None, "No capacity inside the range has a finite error.")
    low, high = _interval(test, seeds, lower=getattr(found, lower), upper=getattr(found, upper))
    a, b = getattr(found, lower), getattr(found, upper)
    evidence = (
        f"{curve[a]:.4g} at {a} and {curve[b]:.4g} at {b} (means of {counted(len(seeds), 'seed')}). Difference "
        f"{curve[b] - curve[a]:+.4g}, 95 % interval {low:+.3g} to {high:+.3g}, for all pairs of {len(test)} at once."
    )
    # without a rise there is no minimum before it
    if lower == "before" and upper == "first":
        least, most = _interval(test, seeds, lower=found.before, upper=found.peak)
        if most <= 0:
            rise = f"the peak, at {found.peak}, minus it: {least:+.3g} to {most:+.3g}"
            return judge(text, None, f"{evidence} The error does not rise behind it ({rise}).")
    return judge(text, True if low > 0 else False if high <= 0 else None, evidence)


def _interval(test: MetricTable, seeds: Sequence[Any], *, lower: Any, upper: Any) -> tuple[float, float]:
    """The interval of a difference, whichever of all pairs it is of."""
    if lower == upper:
        return 0.0, 0.0
    rows = {place: np.array([row[seed] for seed in seeds]) for place, row in test.items()}
    pairs = np.array([rows[b] - rows[a] for a, b in combinations(rows, 2)])
    finite = pairs[np.isfinite(pairs).all(1)]
    difference = rows[upper] - rows[lower]
    typical = float(np.median(finite.std(1, ddof=1))) if len(finite) else 0.0
    half = float(half_widths(difference, groups=len(test), selected=True, typical=typical))
    return float(difference.mean()) - half, float(difference.mean()) + half


def draw(tables: dict[str, MetricTable], key: str, metric: str) -> Figure:
    """Draw the errors over the capacity."""
    with style_context():
        fig = figure(7.2, 4.6)
        axes = fig.add_subplot()
        draw_tables(axes, tables)
        # near the interpolation threshold training error reaches its least
        train = means(tables.get("training", {}))
        if train:
            threshold = argmin(train)
            axes.axvline(threshold, color=BLACK, linestyle=":", linewidth=1.6, label=f"least training {metric}")
        axes.set(xscale="log", xlabel=key.rpartition(".")[2], ylabel=metric)
        plain_ticks(axes.xaxis, [value for table in tables.values() for value in table])
        axes.legend()
    return fig
