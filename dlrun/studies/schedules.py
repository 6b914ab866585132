"""Schedules: a large rate first and a smaller one later beat every constant rate at equal budget (book 3.6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlrun.analysis.figures.scale import axis_label, plain_ticks
from dlrun.analysis.figures.style import BLACK, COLOURS, MARKERS, figure, style_context
from dlrun.analysis.statistics import LEVEL, confidence_interval
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

    Each stands at its best rate. Undecided if the best constant rate is an end of the range. Cross-validated over
    seeds: each seed is judged at the rate that is best on the other seeds, so that no rate gains from the noise that
    selected it. The intervals of the paired differences are Bonferroni-corrected.
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
    # Bonferroni: k schedules share the 5 % of error
    level, base = 1 - (1 - LEVEL) / len(others), held_out_values(constant, seeds)
    scores: list[str] = []
    lows: list[float] = []
    highs: list[float] = []
    for name, table in others.items():
        own = held_out_values(table, seeds)
        differences = [own[seed] - base[seed] for seed in seeds]
        low, high = confidence_interval(differences, level)
        scores.append(
            f"{name} {sum(differences) / len(seeds):+.3g} ({low:+.3g} to {high:+.3g}, rate {_best(table, seeds)})"
        )
        lows.append(low)
        highs.append(high)
    mean = sum(base.values()) / len(seeds)
    evidence = (
        f"The best constant rate, {_best(constant, seeds)}, has {metric} {mean:.4g}; against it, {level:.1%} intervals "
        f"over {len(seeds)} seeds: {'; '.join(scores)}."
    )
    return judge(text, True if min(highs) < 0 else False if min(lows) >= 0 else None, evidence)


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
