"""Parallel coordinates: every group of a sweep as a line through its values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrun.analysis.figures.scale import all_numbers, positions, spans_decades
from dlrun.analysis.figures.style import BLACK, figure, style_context

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_TICKS = 6
FAN = 0.06  # height over which lines through one value are spread


def parallel(
    keys: Sequence[str], rows: Sequence[Mapping[str, Any]], metric: str, *, higher_is_better: bool = False
) -> Figure:
    """Draw each row as a line through its values.

    A row holds its values by key, and its metric; a line passes over the axes of values that are None. Better rows are
    darker; the best is thick and black.
    """
    columns = [*keys, metric]
    ordered = [row for row in rows if math.isfinite(row[metric])]
    ordered.sort(key=lambda row: row[metric], reverse=not higher_is_better)  # the best last, on top
    heights = {key: _heights([row[key] for row in ordered if row[key] is not None]) for key in columns}
    with style_context():
        fig = figure(1.9 * len(columns) + 1.2, 4.8)
        axes = fig.add_subplot()
        for rank, row in enumerate(ordered):
            best = rank == len(ordered) - 1
            # lines through one value side by side, so that each can be followed
            aside = FAN * (rank / max(len(ordered) - 1, 1) - 0.5)
            places = [i for i, key in enumerate(columns) if row[key] is not None]
            own = [columns[i] for i in places]
            line = [heights[key][row[key]] + (aside if len(heights[key]) < len(ordered) else 0) for key in own]
            axes.plot(
                places,
                line,
                color=BLACK if best else _shade(rank / max(len(ordered) - 1, 1)),
                linewidth=3.2 if best else 1.3,
                marker="o" if best else None,
                label="the best" if best else None,
            )
        for i, key in enumerate(columns):
            _axis(axes, i, heights[key])
        axes.set_xticks(range(len(columns)), [_wrap(key) for key in columns])
        axes.set(xlim=(-0.25, len(columns) - 0.35), ylim=(-0.06, 1.06))
        axes.set_yticks([])
        axes.grid(False)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return fig


def _heights(values: Sequence[Any]) -> dict[Any, float]:
    """Each value's height on its axis, 0 to 1."""
    place = positions(values)
    spread = spans_decades(list(place.values())) if all_numbers(list(place)) else False
    at = {value: math.log(x) if spread else x for value, x in place.items()}
    low, high = min(at.values()), max(at.values())
    return {value: (x - low) / (high - low) if high > low else 0.5 for value, x in at.items()}


def _axis(axes: Axes, i: int, heights: Mapping[Any, float]) -> None:
    """Draw an axis with at most `MAX_TICKS` values beside it."""
    axes.axvline(i, color="#555555", linewidth=1.0, zorder=0)
    ordered = sorted(heights, key=heights.__getitem__)
    chosen = ordered
    if len(ordered) > MAX_TICKS:
        # those next to even heights, which do not overlap
        chosen = [min(ordered, key=lambda v: abs(heights[v] - h)) for h in np.linspace(0, 1, MAX_TICKS)]
    for value in dict.fromkeys(chosen):
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        axes.text(
            i + 0.04,
            heights[value],
            text,
            va="center",
            fontsize=11,
            zorder=9,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8},
        )


def _shade(goodness: float) -> tuple[float, float, float]:
    """A blue, from pale (0) to dark (1)."""
    pale, dark = np.array([0.85, 0.89, 0.95]), np.array([0.0, 0.27, 0.50])
    red, green, blue = pale + goodness * (dark - pale)
    return float(red), float(green), float(blue)


def _wrap(key: str) -> str:
    """A dotted key over several lines."""
    return key.replace(".", ".\n").replace("/", "\n")
