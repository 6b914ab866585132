"""The groups of a sweep from the best to the worst: runs as points, the mean with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlrun.analysis.figures.scale import axis_label, is_fraction, plain_ticks, spans_decades, within_sight
from dlrun.analysis.figures.style import BLACK, BLUE, ORANGE, figure, style_context
from dlrun.analysis.statistics import Spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_GROUPS = 25


@dataclass(frozen=True)
class Row:
    """A group's label, values and spread."""

    label: str
    values: Sequence[float]
    spread: Spread
    selected: bool = False


def ranking(rows: Sequence[Row], metric: str) -> Figure:
    """Draw the first `MAX_GROUPS` rows, the selected one starred."""
    from matplotlib.ticker import PercentFormatter

    shown = rows[:MAX_GROUPS]
    drawn = [value for row in shown for value in row.values if math.isfinite(value)]
    with style_context():
        fig = figure(8.2, 1.5 + 0.42 * len(shown))
        axes = fig.add_subplot()
        for i, row in enumerate(shown):
            finite = [value for value in row.values if math.isfinite(value)]
            # below the interval's bar, which would hide them
            below = i + 0.22 if row.spread.n > 1 else i
            axes.scatter(finite, [below] * len(finite), s=24, color=BLUE, alpha=0.55, linewidths=0, zorder=3)
            found = row.spread
            if found.n > 1:
                if not found.vague:
                    axes.plot([found.low, found.high], [i - 0.08] * 2, color=BLACK, linewidth=1.8, zorder=4)
                axes.plot(found.mean, i - 0.08, marker="D", ms=6.5, color=ORANGE, mec=BLACK, zorder=5)
        labels = [("★ " if row.selected else "") + row.label for row in shown]
        axes.set_yticks(range(len(shown)), labels, fontsize=11 if len(shown) > 12 else 12)
        # downwards: the best on top
        axes.set_ylim(len(shown) - 0.4, -0.6)
        if drawn and spans_decades(drawn):
            axes.set_xscale("log")
            plain_ticks(axes.xaxis, drawn, percent=is_fraction(metric))
            axes.set_xlim(min(drawn) / 1.4, max(drawn) * 1.4)  # not from the interval: it may reach below zero
        elif is_fraction(metric):
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        if axes.get_xscale() == "linear" and drawn and max(drawn) > min(drawn):
            axes.set_xlim(within_sight(*axes.get_xlim(), drawn))
        axes.set_xlabel(axis_label(metric))
    return fig
