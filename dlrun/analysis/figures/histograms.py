"""The distribution of a data set's values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, isqrt
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlrun.analysis.figures.scale import plain_ticks
from dlrun.analysis.figures.style import COLOURS, figure, style_context

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWEST, MOST = 5, 40
"""Bins of a panel."""

LONGEST = 12
"""Characters of a name on an axis."""

ACROSS = 4
"""Panels in a row."""

NAMED = 12
"""Values of a category that have a bin each, with their names."""


def histograms(
    columns: Mapping[str, Sequence[tuple[str, Tensor]]],
    title: str,
    *,
    texts: Mapping[str, Sequence[str]] | None = None,
    formats: Mapping[str, Callable[[float], str]] | None = None,
) -> Figure:
    """Draw the shares of values in bins, a panel for each column.

    A column has one or more named parts, such as splits or classes, each with values [n]; those of a column in `texts`
    are places in these. `formats` write a column's values on its axis.
    """
    down = ceil(len(columns) / ACROSS)
    across = min(ACROSS, len(columns))
    with style_context():
        fig = figure(3.2 * across + 0.6, 2.4 * down + 0.8)
        for number, (name, parts) in enumerate(columns.items()):
            axes = fig.add_subplot(down, across, number + 1)
            finite = [values[values.isfinite()].double() for _, values in parts]
            names = (texts or {}).get(name, ())
            named = 0 < len(names) <= NAMED
            edges = torch.arange(len(names) + 1, dtype=torch.float64) - 0.5 if named else _edges(finite)
            for (part, _), values, colour in zip(parts, finite, _colours(len(parts)), strict=True):
                counts = torch.histogram(values, edges).hist / max(1, len(values))
                axes.stairs(counts.numpy(), edges.numpy(), label=part, color=colour, linewidth=1.6)
            axes.set_title(name, parse_math=False, fontsize=11)
            axes.tick_params(labelsize=9)
            if named:
                short = [text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…" for text in names]
                axes.set_xticks(range(len(names)), short, rotation=30, ha="right", parse_math=False)
            elif name in (formats or {}):
                _label(axes, (formats or {})[name])
            if number % across == 0:
                axes.set_ylabel("share", fontsize=10)
            if number == 0 and len(parts) > 1:
                axes.legend(fontsize=8)
        fig.suptitle(title, parse_math=False)
    return fig


def frequencies(counts: Tensor, title: str) -> Figure:
    """Draw how often each token occurs, the most frequent first, on logarithmic axes; `counts` [V]."""
    found = counts[counts > 0].sort(descending=True).values
    with style_context():
        fig = figure(6.0, 4.2)
        axes = fig.add_subplot()
        axes.loglog(range(1, len(found) + 1), found.numpy(), color=COLOURS[0])
        axes.set(xlabel="rank of the token", ylabel="occurrences")
        plain_ticks(axes.xaxis, [1, len(found)])
        plain_ticks(axes.yaxis, [float(found[0]), float(found[-1])] if len(found) else [])
        fig.suptitle(title, parse_math=False)
    return fig


def _label(axes: Axes, written: Callable[[float], str]) -> None:
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter(lambda value, _: written(value))
    for text in axes.get_xticklabels():
        text.set(rotation=20, ha="right")


def _edges(parts: Sequence[Tensor]) -> Tensor:
    together = torch.cat(list(parts))
    low, high = (float(end) for end in torch.aminmax(together)) if len(together) else (0.0, 1.0)
    bins = max(FEWEST, min(MOST, isqrt(max(map(len, parts), default=0))))
    return torch.linspace(low, high if high > low else low + 1, bins + 1, dtype=torch.float64)


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
