"""The pictures of a scaling study: three panels, as figure 3.6 of the book, and the grid with its law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrun.analysis.figures.scale import between, power
from dlrun.analysis.figures.style import BLACK, BLUE, COLOURS, MARKERS, ORANGE, RED, figure, style_context
from dlrun.studies.power_law import LogLogLine, fit_law
from dlrun.studies.scaling_laws import (
    SizedRun,
    TrialLaw,
    exponents,
    fit_panel,
    fit_trials,
    frontier,
    panel_trials,
    slopes,
)
from dlrun.studies.seed_bands import STYLES
from dlrun.terminal.format import amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

SYMBOLS = {"parameters": "N", "tokens": "D", "flop": "C"}
EXPONENTS = {"parameters": "α", "tokens": "β", "flop": "γ"}
LABELS = {"parameters": "parameters", "tokens": "training text, tokens", "flop": "compute, FLOP"}
STAR: dict[str, Any] = {"marker": "*", "s": 230, "color": ORANGE, "edgecolors": BLACK, "zorder": 6}
APART = 1.13
"""The two predictions of a run are drawn this ratio before and behind it."""
TICKS = 7
"""So many losses at most are written beside an axis."""


def panels(trials: Sequence[SizedRun], larger: Sequence[SizedRun]) -> Figure:
    """Draw the loss against compute, data and parameters."""
    fitted = fit_trials(trials)
    with style_context():
        fig = figure(13, 4.6)
        compute, data, size = (fig.add_subplot(1, 3, i + 1) for i in range(3))
        _compute(compute, trials, larger)
        _along(data, "tokens", trials, [], fitted)
        _along(size, "parameters", trials, larger, fitted)
        for axes in (compute, data, size):
            axes.legend(loc="lower left", fontsize=10.5, handlelength=1.6)  # what falls leaves room there
    return fig


def grid(trials: Sequence[SizedRun], larger: Sequence[SizedRun], fitted: TrialLaw) -> Figure:
    """Draw every run and the one law of both quantities: across the parameters, a line a size of the text."""
    with style_context():
        fig = figure(8.2, 5.6)
        axes = fig.add_subplot()
        ends = [t.parameters for t in (*trials, *larger)]
        for i, tokens in enumerate(sorted({t.tokens for t in trials})):
            row = [t for t in trials if t.tokens == tokens]
            look, colour = STYLES[i % len(STYLES)], COLOURS[i % len(COLOURS)]
            x = np.geomspace(min(ends), max(ends), 60)
            axes.plot(x, fitted.law.loss(x, tokens), look, color=colour, linewidth=1.4)
            marker = MARKERS[i % len(MARKERS)]
            axes.plot(*_points(row, "parameters"), marker, color=colour, ms=7, label=f"{tokens:,.0f} tokens")
        if larger:
            axes.scatter(*_points(larger, "parameters"), label="held out", **STAR)
        _scales(axes, ends, [t.loss for t in (*trials, *larger)])
        axes.set(xlabel=LABELS["parameters"], ylabel="test loss, nats a token")
        evidence = [f"{EXPONENTS[n]} = {exponents(fitted.law, i)}" for i, n in enumerate(fitted.names)]
        axes.legend(title="\n".join(evidence), loc="lower left", fontsize=11, title_fontsize=11, alignment="left")
    return fig


def _along(
    axes: Axes, name: str, trials: Sequence[SizedRun], larger: Sequence[SizedRun], fitted: TrialLaw | None
) -> None:
    shown = panel_trials(trials, name)
    known, beyond = ([getattr(t, name) for t in some] for some in (shown, larger))
    axes.plot(*_points(shown, name), "o", color=BLUE, ms=8, label="runs", zorder=4)
    line = fit_panel(shown, name)
    if line:
        _law(axes, line.loss, known, beyond, f"{EXPONENTS[name]} = {slopes(line)}")
    if fitted and name in fitted.names:
        like = max(shown, key=lambda t: (t.parameters, t.tokens))
        x = np.geomspace(min(known), max([*known, *beyond]), 60)
        others = (x if n == name else np.full_like(x, getattr(like, n)) for n in fitted.names)
        axes.plot(x, fitted.law.loss(*others), ":", color=RED, linewidth=1.8, label="law of all runs", zorder=2)
    for trial in larger:
        _held_out(axes, trial, name, line, fitted)
    if larger:
        axes.scatter(*_points(larger, name), label="held out", **STAR)
    _scales(axes, [*known, *beyond], [t.loss for t in (*shown, *larger)])
    axes.set(xlabel=LABELS[name], ylabel="test loss, nats a token")


def _compute(axes: Axes, trials: Sequence[SizedRun], larger: Sequence[SizedRun]) -> None:
    points = frontier(trials)
    for i, trial in enumerate(t for t in (*trials, *larger) if t.curve):
        style = "--" if trial in larger else "-"
        axes.plot(
            *zip(*trial.curve, strict=True),
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
        _law(axes, law.loss, compute, [t.flop for t in larger], f"γ = {exponents(law).replace('95 %: ', '')}")
    ends = [(t.flop, t.curve[-1][1]) for t in larger if t.curve]
    if ends:
        axes.scatter(*zip(*ends, strict=True), label="held out", **STAR)
    seen = [point for t in (*trials, *larger) for point in t.curve]
    _scales(axes, [c for c, _ in seen], [loss for _, loss in seen])
    axes.set(xlabel=LABELS["flop"], ylabel="validation loss, nats a token")


def _law(axes: Axes, law: Any, known: Sequence[float], beyond: Sequence[float], label: str) -> None:
    x = np.geomspace(min(known), max(known), 60)
    axes.plot(x, law(x), "-", color=BLACK, linewidth=1.6, label=label, zorder=3)
    if beyond:
        x = np.geomspace(max(known), max(beyond), 60)
        axes.plot(x, law(x), "--", color=BLACK, linewidth=1.6, zorder=3)


def _held_out(axes: Axes, trial: SizedRun, name: str, line: LogLogLine | None, fitted: TrialLaw | None) -> None:
    """Draw what was predicted of a trial, by the line a little before it and by the law a little behind."""
    x = getattr(trial, name)
    if line:
        _bar(axes, x / APART, line.interval(x), "-", BLACK)
    if fitted:
        _bar(axes, x * APART, fitted.law.interval(*fitted.sizes(trial)), ":", RED)


def _bar(axes: Axes, x: float, ends: tuple[float, float], style: str, colour: str) -> None:
    axes.plot([x, x], ends, style, color=colour, linewidth=2, marker="_", ms=9, zorder=5)


def _points(trials: Sequence[SizedRun], name: str) -> tuple[list[float], list[float]]:
    return [getattr(t, name) for t in trials], [t.loss for t in trials]


def _scales(axes: Axes, x: Sequence[float], losses: Sequence[float]) -> None:
    axes.set(xscale="log", yscale="log")
    if not x:
        return
    _short_ticks(axes.xaxis, max(x) < 100 * min(x))
    low, high = 0.93 * min(losses), 1.04 * max(losses)
    axes.set_ylim(low, high)
    axes.set_yticks(_ticks(low, high), minor=False)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.minorticks_off()


def _short_ticks(axis: Axis, few: bool) -> None:
    """Write the ticks as 20k or 10¹², over less than two decades also those between powers of ten."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    between_too = FuncFormatter(lambda value, _: short(value) if between(value) else "")
    axis.set_minor_formatter(between_too if few else NullFormatter())
    axis.set_tick_params(which="minor", pad=5)  # level with the others, whose ticks are longer


def short(value: float) -> str:
    """Return a tick of parameters, tokens or operations.

    >>> short(20000.0), short(1e6), short(1e12)
    ('20k', '1M', '10¹²')
    """
    return amount(value).replace(" ", "") if value < 1e9 else power(value)


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers between the ends, evenly apart.

    >>> _ticks(2.3, 3.1)
    [2.4, 2.6, 2.8, 3.0]
    """
    split_held_out = next((step for step in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / step < TICKS), 5.0)
    return [
        round(float(tick) * split_held_out, 2)
        for tick in range(int(low / split_held_out) + 1, int(high / split_held_out) + 1)
    ]
