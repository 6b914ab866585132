"""The loss of a language model by position."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import TYPE_CHECKING

from dlrun.analysis.figures.style import BLACK, BLUE, figure, style_context

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


def loss_by_position(losses: Tensor, vocabulary: int) -> Figure:
    """Draw the mean loss by position, in nats.

    `losses` are [windows, positions]. Far positions are averaged in groups (`position_groups`); bars are the standard
    error over windows. The line is log `vocabulary`, the loss of uniform predictions.
    """
    means, errors, places = [], [], []
    for begin, end in position_groups(losses.shape[1]):
        # over the group first: positions of one window are correlated, windows are not
        each = losses[:, begin:end].double().mean(1)
        means.append(float(each.mean()))
        errors.append(float(each.std() / len(each) ** 0.5) if len(each) > 1 else 0.0)
        places.append((begin + 1 + end) / 2)
    with style_context():
        fig = figure(6.2, 4.4)
        axes = fig.add_subplot()
        axes.axhline(log(vocabulary), color=BLACK, linestyle=":", linewidth=1.6, label=f"log {vocabulary:,}")
        axes.errorbar(places, means, errors, color=BLUE, marker="o", ms=4.5, capsize=2.5, label="validation")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set(xlabel="tokens seen, with the last", ylabel="loss of the next token, nats", ylim=(0, None))
        axes.legend()
    return fig


def position_groups(n: int) -> Sequence[tuple[int, int]]:
    """Group positions 0 … n-1 into (begin, end).

    Single positions at first, then groups a quarter as long as their begin.

    >>> position_groups(12)
    [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 10), (10, 12)]
    """
    found, begin = [], 0
    while begin < n:
        end = min(n, begin + max(1, begin // 4))
        found.append((begin, end))
        begin = end
    return found
