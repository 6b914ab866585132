"""The time of a forward pass against the batch, and a score against operations (Canziani et al. 2016, figures 2, 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlrun.analysis.figures.scale import axis_label, is_fraction, plain_ticks, scale_y, spans_decades
from dlrun.analysis.figures.style import BLACK, COLOURS, LINES, MARKERS, figure, style_context
from dlrun.terminal.format import amount

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Times = Mapping[int, tuple[float, float, float]]
"""Milliseconds of a sample by batch size: the median, and the quartiles around it."""


def forward_time(models: Mapping[str, Times], *, noun: str = "image") -> Figure:
    """Draw each model's time of a sample over the size of the batch, with its quartiles."""
    with style_context():
        fig = figure(7.4, 4.8)
        axes = fig.add_subplot()
        for i, (label, times) in enumerate(models.items()):
            sizes, colour = [*times], COLOURS[i % len(COLOURS)]
            middle, low, high = zip(*times.values(), strict=True)
            axes.fill_between(sizes, low, high, color=colour, alpha=0.2, linewidth=0)
            style = LINES[i // len(COLOURS) % len(LINES)]
            axes.plot(sizes, middle, color=colour, linestyle=style, marker=MARKERS[i % len(MARKERS)], label=label)
        every = sorted({size for times in models.values() for size in times})
        axes.set_xscale("log", base=2)
        axes.set_xticks(every, [str(size) for size in every], minor=False)
        axes.minorticks_off()
        if spans_decades(found := [t[0] for times in models.values() for t in times.values()], 10.0):
            axes.set_yscale("log")
            plain_ticks(axes.yaxis, found)
        else:
            axes.set_ylim(0, None)
        axes.set(xlabel="batch size", ylabel=f"milliseconds {article(noun)}")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


@dataclass(frozen=True)
class Scored:
    """A model's size, and the scores of its runs."""

    label: str
    flop: float
    parameters: int
    scores: Sequence[float]


def score_against_operations(models: Sequence[Scored], metric: str, *, noun: str = "image") -> Figure:
    """Draw each run's score over the operations of a forward pass; the area of a disc is in the parameters."""
    most = max(model.parameters for model in models) or 1
    flops = [model.flop for model in models]
    with style_context():
        fig = figure(7.4, 4.8)
        axes = fig.add_subplot()
        for i, model in enumerate(models):
            x, colour = [model.flop / 1e6] * len(model.scores), COLOURS[i % len(COLOURS)]
            area = max(30.0, 1500.0 * model.parameters / most)
            label = f"{model.label}: {amount(model.parameters)}"
            axes.scatter(x, model.scores, s=area, color=colour, alpha=0.35, linewidths=0)
            axes.scatter(x, model.scores, s=16, color=colour, edgecolors=BLACK, linewidths=0.5, label=label, zorder=3)
        every = [score for model in models for score in model.scores]
        scale_y(axes, every, metric)
        if spans_decades(flops, 10.0):
            axes.set_xscale("log")
            plain_ticks(axes.xaxis, [flop / 1e6 for flop in flops])
        # the largest disc has a radius of 20 points
        axes.margins(0.18)
        if is_fraction(metric) and axes.get_yscale() == "linear":
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, -0.02), min(high, 1.02))
        axes.set(xlabel=f"MFLOP of a forward pass, {article(noun)}")
        axes.set_ylabel(axis_label(metric))
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="parameters")
    return fig


def article(noun: str) -> str:
    """A noun with its article.

    >>> article("image"), article("sample")
    ('an image', 'a sample')
    """
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
