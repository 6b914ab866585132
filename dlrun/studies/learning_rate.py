"""Three regimes of the learning rate: too small stalls, too large bounces or diverges (book 3.3, figure 3.2)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrun.analysis.figures.scale import plain_ticks
from dlrun.analysis.figures.style import BLACK, figure, style_context
from dlrun.analysis.statistics import Difference, paired_difference
from dlrun.storage.journal import Curves
from dlrun.storage.results import Result
from dlrun.studies.seed_bands import draw_curves, draw_tables
from dlrun.studies.study import CaptionedFigure, Claim, judge
from dlrun.studies.table import MetricTable, all_values, argmin, common_seeds, means, tabulate
from dlrun.terminal.format import counted

__all__ = ["LearningRate"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEY = "optimizer.lr"
LOSS = "train/loss"


@dataclass(frozen=True)
class LossTrend:
    """The beginning, end and `fluctuation` of a run's training loss.

    `initial` is the first value, `final` the mean of the last quarter, and `fluctuation` the standard deviation of
    the change from point to point over the last half.
    """

    initial: float
    final: float
    fluctuation: float


@dataclass(frozen=True)
class LearningRate:
    """Thresholds of the regimes, as fractions of the initial loss.

    A run stalls if more than `stalled` of the loss is left and converges if less than `converged` is. It bounces if
    it fluctuates by more than `bouncing`, and diverges if it ends above the initial loss. The initial loss is taken
    at the smallest rate: at a large one the first steps have already raised it.
    """

    stalled: float = 0.9
    converged: float = 0.1
    bouncing: float = 0.1

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        first, final, fluctuation = (
            tabulate(results, KEY, partial(_trend, name)) for name in ("initial", "final", "fluctuation")
        )
        # rates ascend: the first is the smallest
        begin = next(iter(means(first).values()), 1.0)
        final, fluctuation = (_in_units(table, begin) for table in (final, fluctuation))
        validation = tabulate(results, KEY, lambda r: r.metrics.get("val/loss"))
        return [
            self.stalls(final),
            self.converges(final, validation),
            self.bounces(final, fluctuation, validation),
        ]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        curves = {rate: [curve for r in group if (curve := r.curves().get(LOSS))] for rate, group in _rates(results)}
        curves = {rate: found for rate, found in curves.items() if found}
        if curves:
            yield CaptionedFigure(
                "curves", draw_curves_by_rate(curves), "Training loss at each rate: median and range over the seeds."
            )
        tables = {
            word: tabulate(results, KEY, f"{split}/loss")
            for word, split in (("training", "train"), ("validation", "val"))
        }
        if tables["validation"]:
            yield CaptionedFigure(
                "rates", draw_losses(tables), "Loss at the selected weights against the learning rate."
            )

    def stalls(self, final: MetricTable) -> Claim:
        """Held if the smallest rate stalls."""
        text = "Too small a rate stalls."
        if len(final) < 3:
            return judge(text, None, "It takes three rates, with curves of the training loss.")
        rate, value = next(iter(means(final).items()))
        evidence = f"At the smallest rate, {rate:g}, {value:.0%} of the training loss is left at the end"
        return judge(text, value > self.stalled, f"{evidence} (stalled: more than {self.stalled:.0%}).")

    def converges(self, final: MetricTable, validation: MetricTable) -> Claim:
        """Held if the selected rate converges, inside the range."""
        text = "A rate in between converges, and validation selects it."
        if len(final) < 3 or not common_seeds(validation):
            return judge(text, None, "It takes three rates, with a validation loss on a common seed.")
        chosen = argmin(means(validation, common_seeds(validation)))
        value, ends = means(final)[chosen], (next(iter(final)), [*final][-1])
        evidence = (
            f"Validation selects {chosen:g}, of {ends[0]:g} to {ends[1]:g}; {value:.1%} of the training loss is left"
        )
        holds = chosen not in ends and value < self.converged
        return judge(text, holds, f"{evidence} (converged: less than {self.converged:.0%}).")

    def bounces(self, final: MetricTable, fluctuation: MetricTable, validation: MetricTable) -> Claim:
        """Held if the largest rate bounces or diverges, significantly more than the selected one."""
        text = "Too large a rate bounces or diverges."
        if len(final) < 3:
            return judge(text, None, "It takes three rates, with curves of the training loss.")
        (rate, end), jumps = [*means(final).items()][-1], [*means(fluctuation).values()][-1]
        evidence = (
            f"At the largest rate, {rate:g}, the training loss fluctuates by {jumps:.3g} times its initial "
            f"value and ends at {end:.3g} times it (bouncing: above {self.bouncing:g}; diverging: above 1)."
        )
        if not (jumps > self.bouncing or end > 1):
            return judge(text, False, evidence)
        seeds = common_seeds(validation)
        chosen = argmin(means(validation, seeds)) if seeds else rate
        if chosen == rate:
            why = "It is the rate that validation selects." if seeds else "No seed has a validation loss at every rate."
            return judge(text, None, f"{evidence} {why}")
        found = {
            word: _log_ratio(table[rate], table[chosen])
            for word, table in (("end", final), ("fluctuation", fluctuation))
        }
        worse = any(map(_above, found.values()))
        evidence += (
            f" It is {'' if worse else 'not '}told apart from the selected rate, {chosen:g}. Ratio to that, geometric "
            f"mean with a 95 % interval: {'; '.join(f'{word} {_describe(ratio)}' for word, ratio in found.items())}."
        )
        return judge(text, True if worse else None, evidence)


def loss_trend(curves: Curves) -> LossTrend | None:
    """Summarise a run's training loss.

    None for fewer than eight points.

    >>> loss_trend({"train/loss": [(i, 2.0 - 0.2 * i) for i in range(9)]}).fluctuation
    0.0
    """
    values = np.array([value for _, value in curves.get(LOSS, ())])
    if len(values) < 8:  # quarters and halves of fewer points mean nothing
        return None
    # `-n // 4` rounds down: the last quarter has at least two points
    final, fluctuation = float(values[-len(values) // 4 :].mean()), float(np.diff(values[len(values) // 2 :]).std())
    # a loss that is no longer finite has diverged
    final, fluctuation = (value if math.isfinite(value) else math.inf for value in (final, fluctuation))
    return LossTrend(float(values[0]), final, round(fluctuation, 12))


def draw_curves_by_rate(curves: dict[float, list[list[tuple[int, float]]]], *, shown: int = 7) -> Figure:
    """Draw the training loss, for at most `shown` rates."""
    rates = [*curves]
    # evenly spaced, with both ends
    picked = [rates[i] for i in np.unique(np.linspace(0, len(rates) - 1, min(shown, len(rates))).round().astype(int))]
    with style_context():
        fig = figure(8.6, 4.8)
        axes = fig.add_subplot()
        for i, rate in enumerate(picked):
            draw_curves(axes, curves[rate], name=f"{rate:g}", i=i, marked=True)
        axes.set(xlabel="optimizer step", ylabel="training loss", yscale="log")
        plain_ticks(axes.yaxis, [value for rate in picked for curve in curves[rate] for _, value in curve])
        axes.margins(x=0.02)
        axes.legend(title="learning rate", loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def draw_losses(tables: dict[str, MetricTable]) -> Figure:
    """Draw the losses over the rate, and the selected rate."""
    with style_context():
        fig = figure(6.8, 4.6)
        axes = fig.add_subplot()
        draw_tables(axes, {word: table for word, table in tables.items() if table})
        chosen = argmin(means(tables["validation"]))
        axes.axvline(chosen, color=BLACK, linestyle=":", linewidth=1.6, label=f"chosen: {chosen:g}")
        axes.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="loss")
        plain_ticks(axes.xaxis, [rate for table in tables.values() for rate in table])
        plain_ticks(axes.yaxis, all_values(tables))
        axes.legend()
    return fig


def _log_ratio(high: Mapping[Any, float], low: Mapping[Any, float]) -> Difference:
    """One rate's values over another's by seed, as logarithms."""
    # a diverged run is infinite, a constant loss does not fluctuate
    logs = [{seed: math.log(min(max(v, 1e-12), 1e12)) for seed, v in side.items()} for side in (low, high)]
    return paired_difference(logs[0], logs[1])


def _above(found: Difference) -> bool:
    # one of two tests, each at half of 5 %
    return found.mean > 0 and (found.significant is True or (found.constant and found.n > 1))


def _describe(found: Difference) -> str:
    if not found.n:
        return "unknown, without a common seed"
    if math.isnan(found.low):
        return f"{_times(found.mean)} ({'one seed' if found.n == 1 else 'the same on every seed'})"
    return f"{_times(found.mean)} ({_times(found.low)} to {_times(found.high)}, {counted(found.n, 'seed')})"


def _times(log: float) -> str:
    return f"{math.exp(min(log, 700.0)):.3g}"  # more has no place in a float


def _rates(results: Sequence[Result]) -> Iterator[tuple[float, list[Result]]]:
    for rate in sorted({float(result.value(KEY)) for result in results}):
        yield rate, [result for result in results if float(result.value(KEY)) == rate]


def _in_units(table: MetricTable, unit: float) -> MetricTable:
    return {value: {seed: found / unit for seed, found in row.items()} for value, row in table.items()}


def _trend(name: str, result: Result) -> float | None:
    found = loss_trend(result.curves())
    return None if found is None else float(getattr(found, name))
