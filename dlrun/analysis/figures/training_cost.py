"""Training FLOP against time: our runs among published models (Fleuret's book, figure 3.7)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dlrun.analysis.figures.scale import power
from dlrun.analysis.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    MARKERS,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    YELLOW,
    figure,
    style_context,
)
from dlrun.analysis.published_cost import A100, PUBLISHED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OF_DOMAIN = {"vision": BLUE, "language": RED, "other": BLACK}
OWN = (GREEN, ORANGE, PURPLE, SKY, YELLOW)
LEFT = ("VGG16", "Seq2Seq", "Deep Speech 2", "GPT-3", "T5-11B", "PaLM")
BELOW = ("Seq2Seq", "ResNet-152", "Transformer", "Chinchilla")
"""Where a name stands, so that those of one year do not hide each other."""
KWH = 3.6e6
ENERGIES = {"1 Wh": 1e-3, "1 kWh": 1.0, "1 MWh": 1e3, "1 GWh": 1e6}
"""The dashed lines, in kWh."""


def training_cost(runs: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Draw runs, pairs (seconds since 1970, FLOP) by name, and the published models."""
    from matplotlib.ticker import FuncFormatter

    with style_context():
        fig = figure(9.6, 6.0)
        axes = fig.add_subplot()
        for domain, colour in OF_DOMAIN.items():
            found = [each for each in PUBLISHED if each.domain == domain]
            years = [each.year + (each.month - 0.5) / 12 for each in found]
            axes.scatter(years, [each.flop for each in found], s=34, color=colour, label=domain)
            for year, each in zip(years, found, strict=True):
                left, below = each.name in LEFT, each.name in BELOW
                axes.annotate(
                    each.name,
                    (year, each.flop),
                    xytext=(-6 if left else 6, -12 if below else 3),
                    textcoords="offset points",
                    ha="right" if left else "left",
                    fontsize=10,
                    color=colour,
                )
        for i, (name, points) in enumerate(runs.items()):
            x, y = [decimal_year(seconds) for seconds, _ in points], [flop for _, flop in points]
            marker, colour = MARKERS[1 + i % (len(MARKERS) - 1)], OWN[i % len(OWN)]
            axes.scatter(
                x, y, s=70, marker=marker, color=colour, edgecolors=BLACK, linewidths=0.6, label=name, zorder=3
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
        _energies(axes)
        axes.set(xlabel="year", ylabel="training FLOP")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def _energies(axes: Axes) -> None:
    """Dash the FLOP that an A100 computes with some energy."""
    low, high = axes.get_ylim()
    # inside the axes, at the right where nothing is published yet
    x = axes.get_xlim()[1]
    for label, kwh in ENERGIES.items():
        if low < (flop := kwh * KWH * A100) < high:
            axes.axhline(flop, color="#888888", linewidth=1.0, linestyle="--", zorder=0)
            axes.annotate(
                label, (x, flop), xytext=(-2, 3), textcoords="offset points", ha="right", fontsize=10, color="#666666"
            )


def decimal_year(seconds: float) -> float:
    """A time since 1970 as a year.

    >>> round(decimal_year(1782000000.0), 2)
    2026.47
    """
    day = time.gmtime(seconds)
    return day.tm_year + (day.tm_yday - 1) / 365.25
