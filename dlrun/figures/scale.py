"""What an axis shows: numbers side by side, numbers over decades, or names."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DECADES = 30.0
"""From this ratio of the largest to the smallest on, positive values are drawn on a logarithmic axis."""


def decades(values: Collection[float]) -> bool:
    """Return whether the finite values are positive and so far apart that a linear axis would hide the small ones.

    >>> decades([0.001, 0.1]), decades([1, 2, 3]), decades([0, 100])
    (True, False, False)
    """
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > DECADES * min(finite)


def numeric(values: Collection[Any]) -> bool:
    """Return whether the values are numbers (true and false are names)."""
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def places(values: Sequence[Any]) -> dict[Any, float]:
    """Return where on an axis the different values stand: numbers at themselves, names side by side.

    >>> places(["sgd", "adam", "sgd"]), places([0.1, 0.2])
    ({'sgd': 0.0, 'adam': 1.0}, {0.1: 0.1, 0.2: 0.2})
    """
    distinct = list(dict.fromkeys(values))
    return {value: float(value) if numeric(distinct) else float(i) for i, value in enumerate(distinct)}


def scale_x(axes: Axes, values: Sequence[Any]) -> None:
    """Give the axis the scale and the ticks that suit the values, which stand at their `places`."""
    distinct = list(dict.fromkeys(values))
    if not numeric(distinct):
        names = [str(value) for value in distinct]
        turned = max(map(len, names)) * len(names) > 40
        axes.set_xticks(range(len(names)), names, rotation=30 if turned else 0, ha="right" if turned else "center")
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif decades(distinct):
        axes.set_xscale("log")
    elif decades([value for value in distinct if value != 0]) and min(distinct) == 0:
        least = min(value for value in distinct if value != 0)
        axes.set_xscale("symlog", linthresh=least, linscale=0.5)
        axes.set_xlim(-0.3 * least, None)
    elif len(distinct) <= 12 and all(value == int(value) for value in distinct):
        axes.set_xticks(sorted(distinct))


def scale_y(axes: Axes, values: Collection[float], metric: str) -> None:
    """Give the axis the scale that suits the values of a metric; fractions are shown in per cent."""
    from matplotlib.ticker import PercentFormatter

    if decades(values):
        axes.set_yscale("log")
    elif metric.rpartition("/")[2] in FRACTIONS:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))


FRACTIONS = ("error", "accuracy", "recall_at_1")
"""Metrics that are shown in per cent."""

WORDS = {"train": "training", "val": "validation", "test": "test"}


def words(metric: str) -> str:
    """Return a metric's name as an axis shows it.

    >>> words("val/error"), words("lr")
    ('validation error', 'lr')
    """
    split, slash, name = metric.partition("/")
    return f"{WORDS.get(split, split)} {name}".replace("_", " ") if slash else metric.replace("_", " ")
