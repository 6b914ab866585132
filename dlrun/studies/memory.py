"""Memory for compute: activations and time of a step against depth, in each way to keep them (the book's 3.4).

Chen et al. 2016 (arXiv:1604.06174) keep the activations at every √depth-th block, Gomez et al. 2017 (arXiv:1707.04585)
none but the last; both compute the rest again, so a step has two forward passes. The runs have measured it
(`trainer.profile=memory`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import median
from typing import TYPE_CHECKING, Any

from dlrun.analysis.figures.scale import plain_ticks
from dlrun.analysis.figures.style import BLACK, BLUE, GREEN, ORANGE, figure, style_context
from dlrun.analysis.intervals import confidence_interval
from dlrun.storage.results import Result
from dlrun.studies.scaling.power_law import LogLogLine, fit_line
from dlrun.studies.study import CaptionedFigure, Claim, judge

__all__ = ["Memory"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEY = "model.depth"
PLAIN, EVERY, ROOT, REVERSIBLE = "plain", "every block", "sqrt", "reversible"
LOOKS = {
    PLAIN: (BLACK, "o", "-", "plain"),
    EVERY: (BLUE, "s", "--", "checkpointed, every block"),
    ROOT: (ORANGE, "^", "-.", "checkpointed, every √depth"),
    REVERSIBLE: (GREEN, "D", ":", "reversible"),
}
Curve = dict[float, float]
"""A number by depth, the median over seeds."""


@dataclass(frozen=True)
class Memory:
    """Growth of the activations with depth, and the time that it costs to keep fewer."""

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        measured = [r for r in results if r.summary.memory]
        return [
            grows(measured, PLAIN, 1.0, "The activations of the plain network grow in proportion to its depth."),
            grows(measured, ROOT, 0.5, "Checkpointed every √depth blocks, they grow as the root of the depth."),
            grows(measured, REVERSIBLE, 0.0, "Those of the reversible network do not grow."),
            costs(measured, EVERY, "A checkpointed step takes about 4/3 of the plain one's time."),
            backward_costs(measured),
        ]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        measured = [r for r in results if r.summary.memory]
        if measured:
            caption = (
                "Activations at their peak, and processor time of a step, against the number of blocks; all axes "
                "logarithmic, medians over seeds. Left with the fitted exponent and its 95 % interval; right with the "
                "time as a multiple of the plain step's, the median over all depths."
            )
            yield CaptionedFigure("memory", draw(measured), caption)


def grows(results: Sequence[Result], way: str, expected: float, text: str) -> Claim:
    """Held if the exponent's 95 % interval lies within 0.1 of the expected one."""
    curve = activations(results, way)
    line = fit_line([*curve.values()], [*curve])
    if line is None:
        return judge(text, None, f"It takes three depths with a measured memory; there are {len(curve)}.")
    first, last = min(curve), max(curve)
    evidence = (
        f"Exponent {_exponent(line)} over depths {first:g} to {last:g}: {curve[first] / 1e6:.3g} MB to "
        f"{curve[last] / 1e6:.3g} MB."
    )
    return judge(text, _within(line.low, line.high, expected - 0.1, expected + 0.1), evidence)


def costs(results: Sequence[Result], way: str, text: str) -> Claim:
    """Held if the 95 % interval of the mean ratio lies between 1.2 and 1.5."""
    ratios = [value for r in results if (value := r.summary.memory.get(way, {}).get("relative"))]
    others = [f"{LOOKS[name][3]} {found:.2f}" for name in (ROOT, REVERSIBLE) if (found := relative(results, name))]
    return _judge_ratio(text, ratios, (1.2, 1.5), f"; medians: {', '.join(others)}" if others else "")


def backward_costs(results: Sequence[Result]) -> Claim:
    """Held if the 95 % interval of the mean ratio lies between 1.6 and 2.4."""
    text = "The backward pass takes about twice the time of the forward pass."
    plain = [r.summary.memory[PLAIN] for r in results if PLAIN in r.summary.memory]
    ratios = [each["backward"] / each["forward"] for each in plain if each.get("forward")]
    return _judge_ratio(text, ratios, (1.6, 2.4), "")


def activations(results: Sequence[Result], way: str) -> Curve:
    """The bytes by depth."""
    return _by_depth(results, way, "activations")


def seconds(results: Sequence[Result], way: str) -> Curve:
    """The seconds of a step by depth."""
    forward, backward = (_by_depth(results, way, name) for name in ("forward", "backward"))
    return {depth: forward[depth] + backward[depth] for depth in forward if depth in backward}


def relative(results: Sequence[Result], way: str) -> float | None:
    """The median time of a step as a multiple of the plain one's."""
    found = [value for r in results if (value := r.summary.memory.get(way, {}).get("relative"))]
    return median(found) if found else None


def draw(results: Sequence[Result]) -> Figure:
    """Draw activations and time against depth."""
    with style_context():
        fig = figure(12, 5)
        memory, time = fig.add_subplot(1, 2, 1), fig.add_subplot(1, 2, 2)
        for way, (colour, marker, style, label) in LOOKS.items():
            look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": style, "ms": 7}
            if curve := activations(results, way):
                line = fit_line([*curve.values()], [*curve])
                exponent = f": exponent {_exponent(line)}" if line else ""
                memory.plot([*curve], [value / 1e6 for value in curve.values()], label=label + exponent, **look)
            if curve := seconds(results, way):
                ratio = relative(results, way)
                of_plain = f": {ratio:.2f} ×" if ratio and way != PLAIN else ""
                time.plot([*curve], [1e3 * value for value in curve.values()], label=label + of_plain, **look)
        _finish(memory, "activations, MB", activations(results, PLAIN))
        _finish(time, "a step, ms of processor time", seconds(results, PLAIN))
    return fig


def _finish(axes: Axes, label: str, curve: Curve) -> None:
    axes.set(xscale="log", yscale="log", xlabel="blocks", ylabel=label)
    axes.set_xticks([*curve], [f"{depth:g}" for depth in curve])
    axes.minorticks_off()
    plain_ticks(axes.yaxis, axes.get_ylim())
    # above the curves, which rise to the right
    axes.margins(y=0.1)
    axes.legend(loc="upper left", fontsize=10)
    axes.set_ylim(top=axes.get_ylim()[1] * 3)


def _by_depth(results: Sequence[Result], way: str, name: str) -> Curve:
    found: dict[float, list[float]] = {}
    for result in results:
        value = result.summary.memory.get(way, {}).get(name)
        depth = result.value(KEY)
        if isinstance(value, int | float) and value > 0 and depth:
            found.setdefault(float(depth), []).append(float(value))
    return {depth: median(values) for depth, values in sorted(found.items())}


def _exponent(line: LogLogLine) -> str:
    return f"{line.slope:.2f} ({line.low:.2f} to {line.high:.2f})".replace("-0.00", "0.00")


def _judge_ratio(text: str, ratios: Sequence[float], bounds: tuple[float, float], more: str) -> Claim:
    if len(ratios) < 3:
        return judge(text, None, f"It takes three measured runs; there are {len(ratios)}.")
    low, high = (exp(end) for end in confidence_interval([log(ratio) for ratio in ratios]))
    evidence = (
        f"Geometric mean {exp(sum(map(log, ratios)) / len(ratios)):.2f} (95 % interval {low:.2f} to {high:.2f}) over "
        f"{len(ratios)} runs{more}. Held between {bounds[0]:g} and {bounds[1]:g}."
    )
    return judge(text, _within(low, high, *bounds), evidence)


def _within(low: float, high: float, least: float, most: float) -> bool | None:
    """True for an interval within the bounds, False for one beside them, None for one across them."""
    if least <= low and high <= most:
        return True
    return False if high < least or low > most else None
