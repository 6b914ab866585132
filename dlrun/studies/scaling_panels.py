"""The pictures of a scaling study: three panels, as figure 3.6 of the book, and the grid with its law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrun.figures.scale import plain_ticks
from dlrun.figures.style import BLACK, BLUE, COLOURS, MARKERS, ORANGE, figure, styled
from dlrun.studies.bands import STYLES
from dlrun.studies.power_law import fit
from dlrun.studies.scaling_laws import Fitted, Trial, exponents, frontier, law_of, panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SYMBOLS = {"parameters": "N", "tokens": "D", "flop": "C"}
EXPONENTS = {"parameters": "α", "tokens": "β", "flop": "γ"}
LABELS = {"parameters": "parameters", "tokens": "training text, tokens", "flop": "compute, FLOP"}
STAR: dict[str, Any] = {"marker": "*", "s": 230, "color": ORANGE, "edgecolors": BLACK, "zorder": 6}
TICKS = 7
"""So many losses at most are written beside an axis."""


def panels(trials: Sequence[Trial], larger: Sequence[Trial]) -> Figure:
    """Draw the loss against compute, data and parameters."""
    fitted = law_of(trials)
    with styled():
        drawn = figure(16.5, 5.4)
        compute, data, size = (drawn.add_subplot(1, 3, i + 1) for i in range(3))
        _compute(compute, trials, larger)
        _along(data, "tokens", trials, [], fitted)
        _along(size, "parameters", trials, larger, fitted)
        for axes in (compute, data, size):
            axes.legend(loc="lower left", fontsize=11)  # what falls leaves room there
    return drawn


def grid(trials: Sequence[Trial], larger: Sequence[Trial], fitted: Fitted) -> Figure:
    """Draw every run and the one law of both quantities: across the parameters, a line a size of the text."""
    with styled():
        drawn = figure(8.2, 5.4)
        axes = drawn.add_subplot()
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
        drawn.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=11)
    return drawn


def _along(axes: Axes, name: str, trials: Sequence[Trial], larger: Sequence[Trial], fitted: Fitted | None) -> None:
    shown = panel(trials, name)
    axes.plot(*_points(shown, name), "o", color=BLUE, ms=8, label="runs", zorder=4)
    known = [getattr(t, name) for t in shown]
    if fitted and name in fitted.names:
        i = fitted.names.index(name)
        like = max(shown, key=lambda t: (t.parameters, t.tokens))

        def law(x: Any) -> Any:
            return fitted.law.loss(*(x if n == name else np.full_like(x, getattr(like, n)) for n in fitted.names))

        label = f"law, {EXPONENTS[name]} = {exponents(fitted.law, i)}"
        _law(axes, law, known, [getattr(t, name) for t in larger], label)
    _held_out(axes, name, larger, fitted)
    _scales(axes, [*known, *(getattr(t, name) for t in larger)], [t.loss for t in (*shown, *larger)])
    axes.set(xlabel=LABELS[name], ylabel="test loss, nats a token")


def _compute(axes: Axes, trials: Sequence[Trial], larger: Sequence[Trial]) -> None:
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
    law = fit(losses, compute)
    if law:
        _law(axes, law.loss, compute, [t.flop for t in larger], f"law, γ = {exponents(law)}")
    ends = [(t.flop, t.curve[-1][1]) for t in larger if t.curve]
    if ends:
        axes.scatter(*zip(*ends, strict=True), label="held out, at its end", **STAR)
    seen = [point for t in (*trials, *larger) for point in t.curve]
    _scales(axes, [c for c, _ in seen], [loss for _, loss in seen])
    axes.set(xlabel=LABELS["flop"], ylabel="validation loss, nats a token")


def _law(axes: Axes, law: Any, known: Sequence[float], beyond: Sequence[float], label: str) -> None:
    x = np.geomspace(min(known), max(known), 60)
    axes.plot(x, law(x), "-", color=BLACK, linewidth=1.6, label=label, zorder=3)
    if beyond:
        x = np.geomspace(max(known), max(beyond), 60)
        axes.plot(x, law(x), "--", color=BLACK, linewidth=1.6, label="the law, extended", zorder=3)


def _held_out(axes: Axes, name: str, larger: Sequence[Trial], fitted: Fitted | None) -> None:
    for i, trial in enumerate(larger):
        if fitted:
            low, high = fitted.law.interval(*fitted.at(trial))
            x, label = getattr(trial, name), "predicted, 95 %" if i == 0 else None
            axes.errorbar(x, (low + high) / 2, (high - low) / 2, color=BLACK, capsize=7, fmt="none", label=label)
    if larger:
        axes.scatter(*_points(larger, name), label="held out", **STAR)


def _points(trials: Sequence[Trial], name: str) -> tuple[list[float], list[float]]:
    return [getattr(t, name) for t in trials], [t.loss for t in trials]


def _scales(axes: Axes, x: Sequence[float], losses: Sequence[float]) -> None:
    axes.set(xscale="log", yscale="log")
    if not x:
        return
    plain_ticks(axes.xaxis, x)
    low, high = 0.93 * min(losses), 1.04 * max(losses)
    axes.set_ylim(low, high)
    axes.set_yticks(_ticks(low, high), minor=False)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.minorticks_off()


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers between the ends, evenly apart.

    >>> _ticks(2.3, 3.1)
    [2.4, 2.6, 2.8, 3.0]
    """
    apart = next((step for step in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / step < TICKS), 5.0)
    return [round(float(tick) * apart, 2) for tick in range(int(low / apart) + 1, int(high / apart) + 1)]
