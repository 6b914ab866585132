"""A metric over one swept key (points and a line) or over two (a heat map)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrun.analysis.figures.scale import (
    SPLIT_NAMES,
    axis_label,
    is_fraction,
    plain_ticks,
    positions,
    scale_x,
    scale_y,
    spans_decades,
)
from dlrun.analysis.figures.style import BLACK, BLUE, GREEN, ORANGE, figure, style_context

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = Sequence[tuple[Any, float]]
"""Pairs (value of the swept key, metric of a run)."""

# (colour, marker, line): distinct without colour too
LOOKS: dict[str, tuple[str, str, str]] = {
    "train": (BLUE, "o", "-"),
    "val": (ORANGE, "s", "--"),
    "test": (GREEN, "^", ":"),
}
LOG_SHADES = 5.0  # ratio of largest to smallest above which the shades of a heat map are logarithmic


def against(key: str, metric: str, runs: Mapping[str, Points], line: Mapping[str, Points]) -> Figure:
    """Draw a metric over the values of `key`.

    `runs` are the points by split (`train`, `val`, `test`). For a split in `line`, the median of those points is drawn
    with a band over their range.
    """
    values = list(dict.fromkeys(value for points in runs.values() for value, _ in points))
    place = positions(values)
    with style_context():
        fig = figure(6.8, 4.6)
        axes = fig.add_subplot()
        for split, points in runs.items():
            colour, marker, style = LOOKS[split]
            finite = [(place[x], y) for x, y in points if math.isfinite(y)]
            if split not in line:
                axes.scatter(*_columns(finite), s=34, color=colour, marker=marker, alpha=0.8, label=SPLIT_NAMES[split])
                continue
            axes.scatter(*_columns(finite), s=16, color=colour, marker=marker, alpha=0.35, linewidths=0, zorder=2)
            steps, middle, low, high = _profile(line[split], place)
            axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(
                steps, middle, color=colour, linestyle=style, marker=marker, ms=7, label=SPLIT_NAMES[split], zorder=3
            )
        scale_x(axes, values)
        scale_y(axes, [y for points in runs.values() for _, y in points], metric)
        axes.set(xlabel=key, ylabel=metric.replace("_", " "))
        axes.legend()
    return fig


def heat(keys: tuple[str, str], metric: str, cells: Mapping[tuple[Any, Any], float], best: tuple[Any, Any]) -> Figure:
    """Draw a metric over two keys as shaded cells.

    `keys` are (across, up). The `best` cell is framed; a cell without a run is empty. Numbers stand in ascending order,
    names in that of the cells.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import PercentFormatter

    percent = is_fraction(metric)
    across, up = (_ordered([cell[i] for cell in cells]) for i in (0, 1))
    table = np.full((len(up), len(across)), math.nan)
    for (x, y), value in cells.items():
        table[up.index(y), across.index(x)] = value if math.isfinite(value) else math.nan
    finite = table[np.isfinite(table)].tolist()
    with style_context():
        fig = figure(min(3.6 + 0.95 * len(across), 13), min(2.6 + 0.6 * len(up), 11))
        axes = fig.add_subplot()
        # darker is lower, in grey too; logarithmic if one far value would take all shades
        far = spans_decades(finite, LOG_SHADES)
        shades = axes.imshow(table, origin="lower", cmap="viridis", aspect="auto", norm=LogNorm() if far else None)
        axes.grid(False)
        if table.size <= 150:  # more numbers would not be legible
            for (row, column), value in np.ndenumerate(table):
                # the green channel of viridis grows with its lightness: white text on dark, black on light
                green = shades.to_rgba(value)[1] if math.isfinite(value) else 1.0
                axes.text(
                    column,
                    row,
                    _short(value, percent=percent),
                    ha="center",
                    va="center",
                    fontsize=11,
                    color="white" if green < 0.6 else "black",
                )
        if best in cells:
            corner = across.index(best[0]) - 0.5, up.index(best[1]) - 0.5
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="white", linewidth=5))
            axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=BLACK, linewidth=2.5, linestyle="--"))
        long = max(len(_label(value)) for value in across) > 6
        axes.set_xticks(
            range(len(across)), map(_label, across), rotation=30 if long else 0, ha="right" if long else "center"
        )
        axes.set_yticks(range(len(up)), map(_label, up))
        axes.set(xlabel=keys[0], ylabel=keys[1])
        bar = fig.colorbar(shades, label=axis_label(metric), format=PercentFormatter(1.0) if percent else None)
        if far:
            plain_ticks(bar.ax.yaxis, finite, percent=percent)
    return fig


def _profile(points: Points, place: Mapping[Any, float]) -> tuple[list[float], list[float], list[float], list[float]]:
    """Positions in ascending order, with median, minimum and maximum."""
    found: dict[float, list[float]] = {}
    for x, y in points:
        if math.isfinite(y):
            found.setdefault(place[x], []).append(y)
    rows = [(x, float(np.median(ys)), min(ys), max(ys)) for x, ys in sorted(found.items())]
    return tuple([row[i] for row in rows] for i in range(4))  # type: ignore[return-value]


def _ordered(values: Sequence[Any]) -> list[Any]:
    place = positions(values)
    return sorted(place, key=place.__getitem__)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _label(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _short(value: float, *, percent: bool) -> str:
    """Three significant digits, trailing zeros included.

    >>> [_short(value, percent=False) for value in (0.49, 0.0986, 123.4, 4567.8)], _short(0.025, percent=True)
    (['0.490', '0.0986', '123', '4568'], '2.50%')
    """
    if not math.isfinite(value):
        return "–"
    shown = 100 * value if percent else value
    text = f"{shown:.0f}" if 1000 <= abs(shown) < 1e5 else f"{shown:#.3g}".rstrip(".")
    return text + "%" * percent
