"""Curves over seeds: the median as a line, the range as a band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dlrun.analysis.figures.style import COLOURS, LINES, MARKERS
from dlrun.studies.table import MetricTable, medians

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_tables(axes: Axes, tables: Mapping[str, MetricTable], *, positions: Mapping[Any, float] | None = None) -> None:
    """Draw each table into `axes`, named in the legend.

    `positions` maps a value to its place on the axis; without it, values stand at themselves.
    """
    for i, (name, table) in enumerate(tables.items()):
        x = [positions[value] if positions else value for value in table]
        colour, style = COLOURS[i % len(COLOURS)], LINES[i % len(LINES)]
        low, high = ([side(row.values()) for row in table.values()] for side in (min, max))
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(
            x, [*medians(table).values()], style, color=colour, marker=MARKERS[i % len(MARKERS)], ms=6, label=name
        )


def at_common_steps(curves: Sequence[Sequence[tuple[int, float]]]) -> tuple[list[int], NDArray[np.float64]]:
    """The common steps of curves, and their values [curves, steps]."""
    steps = sorted(set.intersection(*({step for step, _ in curve} for curve in curves)))
    return steps, np.array([[dict(curve)[step] for step in steps] for curve in curves])


def draw_curves(axes: Axes, curves: list[list[tuple[int, float]]], *, name: str, i: int, marked: bool = False) -> None:
    """Draw curves of (step, value) at their common steps."""
    steps, values = at_common_steps(curves)
    colour = COLOURS[i % len(COLOURS)]
    axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)
    # eight markers tell the lines apart without colour
    every = max(1, len(steps) // 8) if marked else None
    axes.plot(
        steps,
        np.median(values, 0),
        LINES[i % len(LINES)],
        color=colour,
        marker=MARKERS[i % len(MARKERS)] if marked else None,
        markevery=every,
        ms=6,
        label=name,
    )
