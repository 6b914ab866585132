"""Learning curves over seeds: the median of a group's runs, and a band from minimum to maximum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dlrun.analysis.figures.scale import axis_label, scale_y
from dlrun.analysis.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    LINES,
    MARKERS,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    figure,
    style_context,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Sequence[tuple[int, float]]
Numbers = NDArray[np.float64]

LEGIBLE = 7  # groups that can be distinguished in one panel
MAX_POINTS = 400  # of a curve
OTHERS = "the other"
LEGEND_ROW = 0.27  # inches, added to the figure's height so that the panels keep theirs
GREY = "#bbbbbb"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK)


@dataclass(frozen=True)
class GroupCurves:
    """The curves of a group's runs, each by metric."""

    label: str
    runs: Sequence[Mapping[str, Curve]]


def bands(bundles: Sequence[GroupCurves], names: Sequence[str], *, title: str = "") -> Figure:
    """Draw each group's median and range, a panel per metric.

    The first `LEGIBLE` groups differ in colour, line and marker; the others are grey.
    """
    shown, rest = bundles[:LEGIBLE], bundles[LEGIBLE:]
    with style_context():
        labels = [bundle.label for bundle in shown] + [f"{OTHERS} {len(rest)}"] * bool(rest)
        columns, rows = _layout(labels, panels=len(names))
        fig = figure(5.6 * len(names) + 0.6, 4.6 + LEGEND_ROW * (rows + bool(rows and title)))
        panels = [fig.add_subplot(1, len(names), i + 1) for i in range(len(names))]
        values_drawn = {name: _panel(axes, name, shown, rest) for axes, name in zip(panels, names, strict=True)}
        for axes, name in zip(panels, names, strict=True):
            # training and validation loss share their scale: they are compared side by side
            same = [other for other in names if other.rpartition("/")[2] == name.rpartition("/")[2]]
            scale_y(axes, values_drawn[name], name, together=[value for other in same for value in values_drawn[other]])
        handles = _handles(panels)
        if len(bundles) > 1:
            fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, title=title or None)
    return fig


def align(curves: Sequence[Curve]) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """The median, minimum and maximum of curves, by step.

    Returns (steps, median, minimum, maximum), at the union of the curves' steps. A curve is interpolated linearly
    between its points and has no value outside them. Steps that fewer than half of the curves reach are left out, and
    so are values that are not finite.
    """
    steps = np.unique(np.concatenate([np.array([step for step, _ in curve], dtype=np.float64) for curve in curves]))
    if len(steps) > MAX_POINTS:
        steps = steps[np.linspace(0, len(steps) - 1, MAX_POINTS).round().astype(int)]
    values = np.array([_at(steps, curve) for curve in curves])
    enough = 2 * np.isfinite(values).sum(0) >= len(curves)
    steps, values = steps[enough], np.where(np.isfinite(values), values, np.nan)[:, enough]
    if not len(steps):
        nothing: Numbers = np.empty(0)
        return nothing, nothing, nothing, nothing
    return steps, np.nanmedian(values, 0), np.nanmin(values, 0), np.nanmax(values, 0)


def _at(steps: Numbers, curve: Curve) -> Numbers:
    finite = np.array([point for point in curve if np.isfinite(point[1])], dtype=np.float64).reshape(-1, 2)
    if not len(finite):
        return np.full_like(steps, np.nan)
    found: Numbers = np.interp(steps, finite[:, 0], finite[:, 1], left=np.nan, right=np.nan)
    return found


def _panel(axes: Axes, name: str, shown: Sequence[GroupCurves], rest: Sequence[GroupCurves]) -> list[float]:
    """Draw a metric's curves; returns all values drawn."""
    values_drawn: list[float] = []
    for i, bundle in enumerate(rest):
        steps, middle, *_ = _band(bundle, name)
        label = f"{OTHERS} {len(rest)}" if i == 0 else None
        axes.plot(steps, middle, color=GREY, linewidth=0.9, label=label, zorder=1)
        values_drawn += [*middle]
    for i, bundle in enumerate(shown):
        steps, middle, low, high = _band(bundle, name)
        colour = COLOURS[i]
        if len(bundle.runs) > 1:
            axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0, zorder=2)
            values_drawn += [*low, *high]
        axes.plot(
            steps,
            middle,
            color=colour,
            linestyle=LINES[i % len(LINES)],
            marker=MARKERS[i],
            # staggered, so that no marker hides another group's
            markevery=(len(steps) * (2 * i + 1) // (2 * len(shown) * 6), max(1, len(steps) // 6)),
            markersize=6,
            label=bundle.label,
            zorder=3 + len(shown) - i,
        )
        values_drawn += [*middle]
    axes.set(xlabel="optimizer step", ylabel=axis_label(name))
    axes.margins(x=0.02)
    return values_drawn


def _layout(labels: Sequence[str], *, panels: int) -> tuple[int, int]:
    """Columns and rows of the legend."""
    if len(labels) < 2:
        return 1, 0
    # about 60 characters fit below a panel; 6 are the line and the gap of an entry
    columns = max(1, min(len(labels), int(60 * panels / (6 + max(map(len, labels))))))
    return columns, -(-len(labels) // columns)


def _handles(panels: Sequence[Axes]) -> dict[str, Artist]:
    """The legend's entries by label, the grey ones last."""
    found = {label: h for axes in panels for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    return dict(sorted(found.items(), key=lambda item: item[0].startswith(OTHERS)))


def _band(bundle: GroupCurves, name: str) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    curves = [run[name] for run in bundle.runs if run.get(name)]
    nothing: Numbers = np.empty(0)
    return align(curves) if curves else (nothing, nothing, nothing, nothing)
