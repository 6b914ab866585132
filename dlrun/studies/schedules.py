"""Schedules: a large rate first and a smaller one later beat every constant rate at equal budget (book 3.6)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlrun.analysis.figures.scale import axis_label, plain_ticks
from dlrun.analysis.figures.style import BLACK, COLOURS, MARKERS, figure, style_context
from dlrun.analysis.simultaneous import half_widths
from dlrun.storage.results import Result
from dlrun.studies.seed_bands import draw_tables
from dlrun.studies.study import CaptionedFigure, Claim, judge
from dlrun.studies.table import MetricTable, all_values, argmin, common_seeds, means, tabulate

__all__ = ["Schedules"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEY = "schedule._target_"
CONSTANT = "constant"


@dataclass(frozen=True)
class Schedules:
    """`metric` is a validation metric, lower is better."""

    metric: str = "val/loss"

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        return [beats_constant(self._tables(results), self.metric)]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        tables = self._tables(results)
        if tables:
            caption = (
                f"{axis_label(self.metric).capitalize()} at the end of the budget: median and range over the seeds "
                "against the rate, and every seed at each schedule's best rate, with a bar at the mean."
            )
            yield CaptionedFigure("schedules", draw(tables, self.metric), caption)

    def _tables(self, results: Sequence[Result]) -> dict[str, MetricTable]:
        """The metric by schedule, then by rate and seed."""
        names = dict.fromkeys(str(result.value(KEY)) for result in results)
        found = {
            name: tabulate([r for r in results if r.value(KEY) == name], "optimizer.lr", self.metric) for name in names
        }
        return {name.rpartition(".")[2].replace("_", " "): table for name, table in found.items() if table}


def beats_constant(tables: dict[str, MetricTable], metric: str) -> Claim:
    """Held if a schedule beats the best constant rate.

    Each stands at its best rate. Undecided if the best constant rate is an end of the range. All pairs of a schedule's
    rate and a constant one have intervals that hold at once; those of the best rates follow from them. The difference
    itself is taken on seeds that did not choose the rates, so that neither side gains from the noise that chose it.
    Values are compared by their ratios where those scatter more evenly than the values: near the largest rates these
    may differ by factors from seed to seed.
    """
    text = "A schedule beats every constant rate at the same budget."
    constant = tables.get(CONSTANT, {})
    others = {name: table for name, table in tables.items() if name != CONSTANT}
    seeds = [s for s in common_seeds(constant) if all(s in common_seeds(table) for table in others.values())]
    if not others or not constant or len(seeds) < 3:
        return judge(text, None, "It takes a constant rate, a schedule, and three common seeds.")
    rate = argmin(means(constant, seeds))
    # a better constant rate may lie beyond that end
    if rate in (min(constant), max(constant)):
        return judge(
            text, None, f"The best constant rate, {rate:g}, is an end of the rates tried. Add rates beyond it."
        )
    ratios = _scatter_by_ratio(tables)
    base, *own = (_logarithms(table) if ratios else table for table in (constant, *others.values()))
    intervals = best_differences(base, own, seeds)
    scores = []
    for (name, table), scaled, (low, high) in zip(others.items(), own, intervals, strict=True):
        chosen, against = held_out_values(scaled, seeds), held_out_values(base, seeds)
        mean = sum(chosen[seed] - against[seed] for seed in seeds) / len(seeds)
        shown = [f"{100 * math.expm1(v):+.1f} %" if ratios else f"{v:+.3g}" for v in (mean, low, high)]
        scores.append(f"{name} {shown[0]} ({shown[1]} to {shown[2]}, rate {_best(table, seeds)})")
    evidence = (
        f"The best constant rate, {rate:g}, has {metric} {means(constant, seeds)[rate]:.4g}. Against it, on seeds held "
        f"out of the choice of rates, with 95 % intervals over {len(seeds)} seeds that hold at once: "
        f"{'; '.join(scores)}."
    )
    held = min(high for _, high in intervals) < 0
    return judge(text, True if held else False if min(low for low, _ in intervals) >= 0 else None, evidence)


def best_differences(
    base: MetricTable, others: Sequence[MetricTable], seeds: Sequence[int]
) -> list[tuple[float, float]]:
    """The 95 % intervals of the least mean of each other table, minus the least of the first; all hold at once.

    Which mean is the least is not known, so every pair of values counts. Against the best of the first table, whichever
    it is, another is at most as high as its best pair says; it is at least as high as its own best is above any.

    >>> base, other = {1: {0: 1.0, 1: 1.2, 2: 1.1}, 2: {0: 2.0, 1: 2.1, 2: 2.2}}, {5: {0: 0.1, 1: 0.3, 2: 0.3}}
    >>> [(low < -0.87 < high < 0) for low, high in best_differences(base, [other], [0, 1, 2])]
    [True]
    """
    first = np.array([[row[seed] for seed in seeds] for row in base.values()])
    pairs = [np.array([[row[s] for s in seeds] for row in table.values()])[:, None] - first[None] for table in others]
    spreads = np.concatenate([found.std(2, ddof=1).ravel() for found in pairs])
    typical = float(np.median(spreads[np.isfinite(spreads)])) if np.isfinite(spreads).any() else 0.0
    # for the upper ends all rates of the others against one, for the lower ends one of each against all of the first
    count = max(sum(map(len, others)), len(others) * len(base))
    found = []
    for each in pairs:
        half = half_widths(each, groups=count + 1, selected=False, typical=typical)
        low, high = each.mean(2) - half, each.mean(2) + half
        # a rate at which a run diverges is no candidate
        low, high = np.nan_to_num(low, nan=math.inf), np.nan_to_num(high, nan=math.inf)
        found.append((float(low.min(0).max()), float(high.max(1).min())))
    return found


def _scatter_by_ratio(tables: dict[str, MetricTable]) -> bool:
    """Whether the logarithms of the values scatter as much at each rate, rather than the values."""
    rows = [np.array([*row.values()]) for table in tables.values() for row in table.values() if len(row) > 1]
    if not all((row > 0).all() and np.isfinite(row).all() for row in rows):
        return False
    plain, ratio = (np.array([row.std() for row in scaled]) for scaled in (rows, [np.log(row) for row in rows]))
    uneven = [float(np.log(found[found > 0]).std()) if (found > 0).any() else 0.0 for found in (plain, ratio)]
    return uneven[1] < uneven[0]


def _logarithms(table: MetricTable) -> MetricTable:
    return {rate: {seed: math.log(value) for seed, value in row.items()} for rate, row in table.items()}


def held_out_values(table: MetricTable, seeds: Sequence[int]) -> dict[int, float]:
    """Each seed's value at the other seeds' best rate.

    >>> held_out_values({0.1: {0: 1.0, 1: 3.0}, 0.2: {0: 2.0, 1: 2.0}}, [0, 1])
    {0: 2.0, 1: 3.0}
    """
    return {s: table[argmin(means(table, [other for other in seeds if other != s]))][s] for s in seeds}


def draw(tables: dict[str, MetricTable], metric: str) -> Figure:
    """Draw the metric over the rate, and at each best rate."""
    with style_context():
        fig = figure(14.5, 4.8)
        left, right = fig.add_subplot(1, 2, 1), fig.add_subplot(1, 2, 2)
        draw_tables(left, tables)
        rates = sorted({rate for table in tables.values() for rate in table})
        left.set(
            xscale="log", yscale="log", xlabel="learning rate (the largest of the schedule)", ylabel=axis_label(metric)
        )
        plain_ticks(left.yaxis, all_values(tables))
        left.set_xticks(rates, [f"{rate:g}" for rate in rates])
        left.xaxis.minorticks_off()
        _at_best(right, tables)
        right.set(ylabel=f"{axis_label(metric)} at the best rate")
        fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return fig


def _at_best(axes: Axes, tables: dict[str, MetricTable]) -> None:
    for i, table in enumerate(tables.values()):
        values = [*table[argmin(means(table))].values()]
        axes.scatter([i] * len(values), values, s=36, color=COLOURS[i % len(COLOURS)], marker=MARKERS[i], zorder=3)
        axes.plot([i - 0.3, i + 0.3], [float(np.mean(values))] * 2, color=BLACK, linewidth=1.6)
    named = [f"{name.replace(' ', chr(10))}\n{argmin(means(table)):g}" for name, table in tables.items()]
    axes.set_xticks(range(len(named)), named, fontsize=11)


def _best(table: MetricTable, seeds: Sequence[int]) -> str:
    return f"{argmin(means(table, seeds)):g}"
