"""The figures of a scaling study: three panels as in figure 3.6 of the book, and the grid with its law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrun.analysis.figures.scale import between, power
from dlrun.analysis.figures.style import BLACK, BLUE, COLOURS, LINES, MARKERS, ORANGE, RED, figure, style_context
from dlrun.studies.scaling.fit import (
    SizedRun,
    SizeLaw,
    fit_size_law,
    fit_size_line,
    format_exponent,
    format_slope,
    frontier,
    panel_runs,
)
from dlrun.studies.scaling.power_law import LogLogLine, fit_law
from dlrun.terminal.format import amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

EXPONENTS = {"parameters": "α", "tokens": "β", "flop": "γ"}
LABELS = {"parameters": "parameters", "tokens": "training text, tokens", "flop": "compute, FLOP"}
STAR: dict[str, Any] = {"marker": "*", "s": 230, "color": ORANGE, "edgecolors": BLACK, "zorder": 6}
BAR_OFFSET = 1.13  # the two predictions of a run stand this ratio left and right of it
MAX_TICKS = 7


def draw_panels(runs: Sequence[SizedRun], larger: Sequence[SizedRun]) -> Figure:
    """Draw the loss against compute, data and parameters."""
    fitted = fit_size_law(runs)
    with style_context():
        fig = figure(13, 4.6)
        compute, data, size = (fig.add_subplot(1, 3, i + 1) for i in range(3))
        _draw_compute(compute, runs, larger)
        _draw_along(data, "tokens", runs, [], fitted)
        _draw_along(size, "parameters", runs, larger, fitted)
        for axes in (compute, data, size):
            axes.legend(loc="lower left", fontsize=10.5, handlelength=1.6)  # falling curves leave room there
    return fig


def draw_grid(runs: Sequence[SizedRun], larger: Sequence[SizedRun], fitted: SizeLaw) -> Figure:
    """Draw every run over its parameters, with the law."""
    with style_context():
        fig = figure(8.2, 5.6)
        axes = fig.add_subplot()
        ends = [r.parameters for r in (*runs, *larger)]
        for i, tokens in enumerate(sorted({r.tokens for r in runs})):
            row = [r for r in runs if r.tokens == tokens]
            look, colour = LINES[i % len(LINES)], COLOURS[i % len(COLOURS)]
            x = np.geomspace(min(ends), max(ends), 60)
            axes.plot(x, fitted.law.loss(x, tokens), look, color=colour, linewidth=1.4)
            marker = MARKERS[i % len(MARKERS)]
            axes.plot(*_losses(row, "parameters"), marker, color=colour, ms=7, label=f"{tokens:,.0f} tokens")
        if larger:
            axes.scatter(*_losses(larger, "parameters"), label="held out", **STAR)
        _set_scales(axes, ends, [r.loss for r in (*runs, *larger)])
        axes.set(xlabel=LABELS["parameters"], ylabel="test loss, nats per token")
        lines = [f"{EXPONENTS[n]} = {format_exponent(fitted.law, i)}" for i, n in enumerate(fitted.names)]
        axes.legend(title="\n".join(lines), loc="lower left", fontsize=11, title_fontsize=11, alignment="left")
    return fig


def _draw_along(
    axes: Axes, name: str, runs: Sequence[SizedRun], larger: Sequence[SizedRun], fitted: SizeLaw | None
) -> None:
    shown = panel_runs(runs, name)
    known, beyond = ([getattr(r, name) for r in some] for some in (shown, larger))
    axes.plot(*_losses(shown, name), "o", color=BLUE, ms=8, label="runs", zorder=4)
    line = fit_size_line(shown, name)
    if line:
        _draw_law(axes, line.loss, known, beyond, f"{EXPONENTS[name]} = {format_slope(line)}")
    if fitted and name in fitted.names:
        # the law of both quantities, along this one at the most of the other
        like = max(shown, key=lambda r: (r.parameters, r.tokens))
        x = np.geomspace(min(known), max([*known, *beyond]), 60)
        others = (x if n == name else np.full_like(x, getattr(like, n)) for n in fitted.names)
        axes.plot(x, fitted.law.loss(*others), ":", color=RED, linewidth=1.8, label="law of all runs", zorder=2)
    for run in larger:
        _draw_predictions(axes, run, name, line, fitted)
    if larger:
        axes.scatter(*_losses(larger, name), label="held out", **STAR)
    _set_scales(axes, [*known, *beyond], [r.loss for r in (*shown, *larger)])
    axes.set(xlabel=LABELS[name], ylabel="test loss, nats per token")


def _draw_compute(axes: Axes, runs: Sequence[SizedRun], larger: Sequence[SizedRun]) -> None:
    points = frontier(runs)
    for i, run in enumerate(r for r in (*runs, *larger) if r.curve):
        style = "--" if run in larger else "-"
        axes.plot(
            *zip(*run.curve, strict=True),
            style,
            color="#b0b0b0",
            linewidth=0.9,
            label=None if i else "validation curves",
        )
    if points:
        axes.plot(*zip(*points, strict=True), "o", color=BLUE, ms=7, label="frontier", zorder=4)
    compute, losses = [c for c, _ in points], [loss for _, loss in points]
    law = fit_law(losses, compute)
    if law:
        _draw_law(
            axes, law.loss, compute, [r.flop for r in larger], f"γ = {format_exponent(law).replace('95 %: ', '')}"
        )
    ends = [(r.flop, r.curve[-1][1]) for r in larger if r.curve]
    if ends:
        axes.scatter(*zip(*ends, strict=True), label="held out", **STAR)
    points_drawn = [point for r in (*runs, *larger) for point in r.curve]
    _set_scales(axes, [c for c, _ in points_drawn], [loss for _, loss in points_drawn])
    axes.set(xlabel=LABELS["flop"], ylabel="validation loss, nats per token")


def _draw_law(axes: Axes, law: Any, known: Sequence[float], beyond: Sequence[float], label: str) -> None:
    x = np.geomspace(min(known), max(known), 60)
    axes.plot(x, law(x), "-", color=BLACK, linewidth=1.6, label=label, zorder=3)
    if beyond:
        x = np.geomspace(max(known), max(beyond), 60)
        axes.plot(x, law(x), "--", color=BLACK, linewidth=1.6, zorder=3)


def _draw_predictions(axes: Axes, run: SizedRun, name: str, line: LogLogLine | None, fitted: SizeLaw | None) -> None:
    """Draw both predicted intervals of a run."""
    x = getattr(run, name)
    if line:
        _draw_bar(axes, x / BAR_OFFSET, line.interval(x), "-", BLACK)
    if fitted:
        _draw_bar(axes, x * BAR_OFFSET, fitted.law.interval(*fitted.sizes(run)), ":", RED)


def _draw_bar(axes: Axes, x: float, ends: tuple[float, float], style: str, colour: str) -> None:
    axes.plot([x, x], ends, style, color=colour, linewidth=2, marker="_", ms=9, zorder=5)


def _losses(runs: Sequence[SizedRun], name: str) -> tuple[list[float], list[float]]:
    return [getattr(r, name) for r in runs], [r.loss for r in runs]


def _set_scales(axes: Axes, x: Sequence[float], losses: Sequence[float]) -> None:
    axes.set(xscale="log", yscale="log")
    if not x:
        return
    _short_ticks(axes.xaxis, max(x) < 100 * min(x))
    # a loss spans less than a decade: a dense linear choice of ticks on the log axis
    low, high = 0.93 * min(losses), 1.04 * max(losses)
    axes.set_ylim(low, high)
    axes.set_yticks(_round_ticks(low, high), minor=False)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.minorticks_off()


def _short_ticks(axis: Axis, few: bool) -> None:
    """Write ticks as 20k or 10¹²."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    # over less than two decades, ticks between powers of ten too
    between_too = FuncFormatter(lambda value, _: short(value) if between(value) else "")
    axis.set_minor_formatter(between_too if few else NullFormatter())
    axis.set_tick_params(which="minor", pad=5)  # level with the others, whose ticks are longer


def short(value: float) -> str:
    """A tick of parameters, tokens or FLOP.

    >>> short(20000.0), short(1e6), short(1e12)
    ('20k', '1M', '10¹²')
    """
    return amount(value).replace(" ", "") if value < 1e9 else power(value)


def _round_ticks(low: float, high: float) -> list[float]:
    """Round numbers between the ends, evenly spaced.

    >>> _round_ticks(2.3, 3.1)
    [2.4, 2.6, 2.8, 3.0]
    """
    width = next((step for step in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / step < MAX_TICKS), 5.0)
    return [round(float(tick) * width, 2) for tick in range(int(low / width) + 1, int(high / width) + 1)]
