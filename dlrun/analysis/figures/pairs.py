"""A comparison seed by seed: the runs of each side as points, those of one seed joined."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlrun.analysis.figures.scale import axis_label, scale_y, within_sight
from dlrun.analysis.figures.style import BLACK, COLOURS, MARKERS, ORANGE, figure, style_context
from dlrun.analysis.statistics import spread
from dlrun.analysis.value_range import ANY, ValueRange

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pairs(sides: Sequence[tuple[str, Mapping[Any, float]]], metric: str, *, possible: ValueRange = ANY) -> Figure:
    """Draw each side's values by seed, and their mean.

    The mean has its 95 % interval, unless that says nothing; the values of a seed are joined.
    """
    seeds = sorted({seed for _, values in sides for seed in values})
    finite = [value for _, values in sides for value in values.values() if math.isfinite(value)]
    with style_context():
        fig = figure(max(4.5, 1.9 * len(sides) + 1.6), 4.6)
        axes = fig.add_subplot()
        for seed in seeds:
            points = [(i, values[seed]) for i, (_, values) in enumerate(sides) if seed in values]
            axes.plot(*zip(*points, strict=True), color="#999999", linewidth=1.1, zorder=1)
        for i, (_, values) in enumerate(sides):
            own = [value for value in values.values() if math.isfinite(value)]
            axes.scatter([i] * len(own), own, s=44, color=COLOURS[0], marker=MARKERS[0], zorder=3)
            found = spread(own, possible=possible)
            if found.n > 1:
                # beside the points, which it would hide
                if not found.vague:
                    axes.plot([i + 0.14] * 2, [found.low, found.high], color=BLACK, linewidth=2.0, zorder=3)
                axes.plot(i + 0.14, found.mean, marker="D", ms=8, color=ORANGE, mec=BLACK, zorder=4)
        labels = [label.replace(" ", "\n").replace(":", ":\n") for label, _ in sides]
        axes.set_xticks(range(len(sides)), labels, fontsize=11)
        axes.set_xlim(-0.4, len(sides) - 0.5)
        scale_y(axes, finite, metric)
        if axes.get_yscale() == "linear" and finite and max(finite) > min(finite):
            axes.set_ylim(within_sight(*axes.get_ylim(), finite))
        axes.set_ylabel(axis_label(metric))
    return fig
