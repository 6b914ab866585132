"""The scale and ticks of an axis: linear, logarithmic, or names."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

LOG_AXIS = 30.0  # ratio of largest to smallest above which an axis is logarithmic
EVEN_TICKS = 8.0  # ratio up to which 1, 2, 5 and 10 may give a logarithmic axis only one tick
DENSE_TICKS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)  # of each decade, for ratios from DENSE_FROM on
DENSE_FROM = 2.5  # ratio up to which ticks at even distances look even on a logarithmic axis


def spans_decades(values: Collection[float], ratio: float = LOG_AXIS) -> bool:
    """True if the largest value exceeds `ratio` times the smallest.

    Not finite values are ignored; false if one is zero or negative.

    >>> spans_decades([0.001, 0.1]), spans_decades([1, 2, 3]), spans_decades([0, 100]), spans_decades([1, 10], 5)
    (True, False, False, True)
    """
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > ratio * min(finite)


def evenly_in_log(values: Collection[float], tolerance: float = 0.2) -> bool:
    """True if three or more values, not all whole, grow by a factor rather than by steps.

    Their logarithms are more evenly spaced than they are, up to `tolerance` of the mean step.

    >>> evenly_in_log([0.02, 0.04, 0.08, 0.16]), evenly_in_log([0.1, 0.2, 0.3]), evenly_in_log([0.001, 0.003, 0.01])
    (True, False, True)
    """
    ascending = sorted(value for value in values if math.isfinite(value))
    if len(ascending) < 3 or ascending[0] <= 0 or all(value == int(value) for value in ascending):
        return False
    steps, factors = (
        [b - a for a, b in pairwise(scaled)] for scaled in (ascending, [math.log(value) for value in ascending])
    )
    mean = sum(factors) / len(factors)
    uneven = max(abs(factor - mean) for factor in factors) / mean
    return uneven <= tolerance and uneven < (max(steps) - min(steps)) / (sum(steps) / len(steps))


def within_sight(low: float, high: float, values: Collection[float]) -> tuple[float, float]:
    """The part of an interval that lies no further from the values than they span.

    That of a few skewed values may reach so far that nothing else could be seen.

    >>> within_sight(0.0, 1e9, [1.0, 3.0]), within_sight(0.5, 2.0, [1.0, 3.0])
    ((0.0, 5.0), (0.5, 2.0))
    """
    span = max(values) - min(values)
    return max(low, min(values) - span), min(high, max(values) + span)


def all_numbers(values: Collection[Any]) -> bool:
    """True if all values are numbers; booleans count as names."""
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def positions(values: Sequence[Any]) -> dict[Any, float]:
    """The position of each distinct value on an axis.

    Numbers stand at themselves, names at 0, 1, 2, …

    >>> positions(["sgd", "adam", "sgd"]), positions([0.1, 0.2])
    ({'sgd': 0.0, 'adam': 1.0}, {0.1: 0.1, 0.2: 0.2})
    """
    distinct = list(dict.fromkeys(values))
    return {value: float(value) if all_numbers(distinct) else float(i) for i, value in enumerate(distinct)}


def scale_x(axes: Axes, values: Sequence[Any]) -> None:
    """Set the scale and ticks of an x axis.

    `values` stand at their `positions`.
    """
    distinct = list(dict.fromkeys(values))
    if not all_numbers(distinct):
        names = [str(value) for value in distinct]
        turned = max(map(len, names)) * len(names) > 40  # characters that fit side by side
        axes.set_xticks(range(len(names)), names, rotation=30 if turned else 0, ha="right" if turned else "center")
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif spans_decades(distinct) or evenly_in_log(distinct):
        axes.set_xscale("log")
        plain_ticks(axes.xaxis, distinct)
    elif spans_decades([value for value in distinct if value != 0]) and min(distinct) == 0:
        # linear from zero to the least other value, logarithmic from there
        least = min(value for value in distinct if value != 0)
        axes.set_xscale("symlog", linthresh=least, linscale=0.5)
        plain_ticks(axes.xaxis, distinct)
        axes.set_xlim(-0.3 * least, None)
    elif len(distinct) <= 12 and all(value == int(value) for value in distinct):
        axes.set_xticks(sorted(distinct))


def scale_y(axes: Axes, values: Collection[float], metric: str, *, together: Collection[float] = ()) -> None:
    """Set the scale and ticks of a y axis.

    `values` are those of `metric`; fractions are shown in per cent. `together` are the values of all panels with the
    same scale; each panel keeps ticks of its own.
    """
    from matplotlib.ticker import PercentFormatter

    if spans_decades(together or values):
        axes.set_yscale("log")
        plain_ticks(axes.yaxis, values, percent=is_fraction(metric))
    elif is_fraction(metric):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def is_fraction(metric: str) -> bool:
    """True for the metrics that are shown in per cent."""
    return metric.rpartition("/")[2] in ("error", "accuracy", "recall_at_1")


def plain_ticks(axis: Axis, values: Collection[float], *, percent: bool = False) -> None:
    """Write logarithmic ticks as 0.01 or 10⁻⁷.

    Within two decades, 2 and 5 are labelled as well. Values within a ratio of `EVEN_TICKS` get ticks of their own: at
    even distances, or from a ratio of `DENSE_FROM` on at `DENSE_TICKS`.
    """
    # plain text: labels that TeX's engine sets take ten times as long to draw
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    finite = [abs(value) for value in values if math.isfinite(value) and value]
    few = bool(finite) and max(finite) < 100 * min(finite)
    scale, unit = (100.0, "%") if percent else (1.0, "")
    if finite and max(finite) <= EVEN_TICKS * min(finite):
        dense = max(finite) > DENSE_FROM * min(finite)
        axis.set_major_locator(LogLocator(subs=DENSE_TICKS) if dense else MaxNLocator(5, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{scale * value:.4g}{unit}"))
        axis.set_minor_formatter(NullFormatter())
        axis.minorticks_off()
        return

    def major(value: float, _: object) -> str:
        return power(scale * value) + unit

    def minor(value: float, _: object) -> str:
        text = between(scale * value)
        return text and text + unit

    axis.set_major_formatter(FuncFormatter(major))
    axis.set_minor_formatter(FuncFormatter(minor) if few else NullFormatter())


def power(value: float) -> str:
    """A power of ten as a tick.

    >>> power(0.001), power(1e-7), power(1000.0), power(0.0)
    ('0.001', '10⁻⁷', '1000', '0')
    """
    exponent = round(math.log10(abs(value))) if value else 0
    if not value or -4 <= exponent <= 4:
        return f"{value:g}"
    return ("−" if value < 0 else "") + "10" + str(exponent).translate(SUPERSCRIPTS)


def between(value: float) -> str:
    """A tick's label at 2·10ⁿ or 5·10ⁿ, else empty.

    >>> between(0.05), between(0.03)
    ('0.05', '')
    """
    return f"{value:g}" if value and f"{value:e}"[0] in "25" else ""


SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


def axis_label(metric: str) -> str:
    """A metric's name in words.

    >>> axis_label("val/error"), axis_label("lr")
    ('validation error', 'lr')
    """
    split, slash, name = metric.partition("/")
    return f"{SPLIT_NAMES.get(split, split)} {name}".replace("_", " ") if slash else metric.replace("_", " ")
