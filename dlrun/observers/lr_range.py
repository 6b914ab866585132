"""The learning-rate range test: the loss against a rate that rises at every step.

Leslie N. Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, arXiv:1506.01186.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dlrun.analysis.figures.style import BLACK, BLUE, ORANGE, figure, style_context
from dlrun.errors import ConfigError
from dlrun.observers.view import RunView

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LRRange"]

FEW = 10
"""Points below which nothing is suggested."""
WIDTH = 0.03
"""The standard deviation of the smoothing, as a share of the points."""
RECENT = 0.8
"""The decay of the running mean of losses by which divergence is seen."""


class Suggestion(NamedTuple):
    """A rate, the smoothed losses, and the rate of the lowest of them."""

    rate: float
    smoothed: list[float]
    lowest: float


class LRRange:
    """Draws the loss against a rising rate, suggests a rate, and ends the run once the loss rises.

    It ends at a running mean of losses `until` times the lowest one, if that is above the first too. The suggestion is
    the rate at which the smoothed loss falls most steeply over the logarithm of the rate.
    """

    def __init__(self, until: float = 4.0) -> None:
        self.until = until
        self.rates: list[float] = []
        self.losses: list[float] = []

    def on_start(self, run: RunView) -> None:
        schedule = str(run.config["schedule"]["_target_"])
        # of one's own, who knows
        if schedule.startswith("dlrun.") and not schedule.endswith(".geometric"):
            raise ConfigError(
                f"The range test needs a rate that rises, and the schedule is {schedule.rpartition('.')[2]}. Type "
                f"+experiment=lr_range in place of +observer=lr_range."
            )

    def on_log(self, run: RunView) -> None:
        values = run.values
        self.rates.append(values["lr"])
        self.losses.append(values["train/loss"])

    def stop_reason(self, run: RunView) -> str | None:
        if run.step < FEW or not diverges(self.losses, self.until):
            return None
        return f"the loss rises, at the rate {self.rates[-1]:.3g}"

    def on_end(self, run: RunView) -> None:
        if len(self.rates) < 2:
            return
        found = suggest(self.rates, self.losses)
        if found is None:
            run.say(
                f"lr_range: no suggestion from rates of {self.rates[0]:.3g} to {self.rates[-1]:.3g}: the loss never "
                f"falls. Type another optimizer.lr (the lowest rate), schedule.factor or trainer.steps."
            )
        else:
            run.say(
                f"lr_range: the smoothed loss falls most steeply at a rate of {found.rate:.2g}, the suggestion, and is "
                f"lowest at {found.lowest:.2g}. Type optimizer.lr={found.rate:.2g}"
            )
            run.log(suggestion=found.rate, lowest=found.lowest)
        path = run.save_figure(draw(self.rates, self.losses, found))
        run.say(f"lr_range: {path}")

    def state_dict(self) -> dict[str, Any]:
        return {"rates": list(self.rates), "losses": list(self.losses)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rates, self.losses = list(state["rates"]), list(state["losses"])


def diverges(losses: Sequence[float], until: float) -> bool:
    """Whether the running mean of losses has risen far above its lowest.

    >>> diverges([2.0, 1.0, 0.5, 0.6, 0.7], 4.0), diverges([2.0, 1.0, 0.5, 6.0, 60.0], 4.0)
    (False, True)
    >>> diverges([-1.0, -5.0, -6.0, -5.0, -5.5], 4.0)
    False
    """
    mean, weight, lowest = 0.0, 0.0, math.inf
    now = first = losses[0]
    for loss in losses:
        mean, weight = RECENT * mean + (1 - RECENT) * loss, RECENT * weight + 1 - RECENT
        now = mean / weight
        lowest = min(lowest, now)
    # a loss may be negative, as that of a density: then what it had fallen is the measure
    limit = max(first, until * lowest) if lowest > 0 else first + max(first - lowest, abs(first))
    return now > limit


def suggest(rates: Sequence[float], losses: Sequence[float]) -> Suggestion | None:
    """The rate of the steepest descent; None if the loss falls nowhere.

    >>> rates = [10 ** (i / 10 - 6) for i in range(61)]
    >>> losses = [2 - 1 / (1 + 10 ** (-2 * (math.log10(r) + 3))) + r for r in rates]
    >>> round(math.log10(suggest(rates, losses).rate), 1)
    -3.0
    """
    finite = [(r, loss) for r, loss in zip(rates, losses, strict=True) if r > 0 and math.isfinite(loss)]
    if len(finite) < FEW:
        return None
    logs, values = [math.log10(r) for r, _ in finite], smooth([loss for _, loss in finite])
    bottom = min(range(len(values)), key=values.__getitem__)
    # nearer to the first point the bell is cut, and noise is left
    begin = math.ceil(2 * _sigma(len(values)))
    slopes = {
        i: (values[i + 1] - values[i - 1]) / (logs[i + 1] - logs[i - 1])
        for i in range(begin, bottom)
        if logs[i + 1] > logs[i - 1]
    }
    if not slopes or min(slopes.values()) >= 0:
        return None
    steepest = min(slopes, key=slopes.__getitem__)
    return Suggestion(finite[steepest][0], values, finite[bottom][0])


def smooth(values: Sequence[float]) -> list[float]:
    """Means with the weights of a bell curve around each value, which shift no slope to later ones."""
    sigma = _sigma(len(values))
    reach = math.ceil(3 * sigma)
    bell = [math.exp(-((d / sigma) ** 2) / 2) for d in range(reach + 1)]
    found = []
    for i in range(len(values)):
        # as many on both sides
        span = min(reach, i, len(values) - 1 - i)
        weights = [bell[abs(d)] for d in range(-span, span + 1)]
        found.append(sum(w * v for w, v in zip(weights, values[i - span : i + span + 1], strict=True)) / sum(weights))
    return found


def _sigma(count: int) -> float:
    return max(1.0, WIDTH * count)


def draw(rates: Sequence[float], losses: Sequence[float], found: Suggestion | None) -> Figure:
    """The losses over the rate, smoothed too, with the suggestion."""
    shown = [(r, loss) for r, loss in zip(rates, losses, strict=True) if r > 0 and math.isfinite(loss)]
    with style_context():
        fig = figure(7, 4.4)
        axes = fig.add_subplot()
        axes.plot(*zip(*shown, strict=True), color=BLUE, alpha=0.4, linewidth=1, label="loss of each batch")
        axes.set(xlabel="learning rate", ylabel="training loss", xscale="log")
        if found:
            axes.plot([r for r, _ in shown], found.smoothed, color=BLUE, label="smoothed")
            axes.axvline(found.rate, color=ORANGE, label=f"steepest descent: {found.rate:.2g}")
            axes.axvline(found.lowest, color=BLACK, linestyle=":", label=f"lowest loss: {found.lowest:.2g}")
            low, high = min(found.smoothed), max(found.smoothed[: len(shown) // 2] or found.smoothed)
            # what is beyond the divergence would flatten the rest
            axes.set_ylim(low - 0.1 * (high - low), high + 0.6 * (high - low))
        axes.legend()
    return fig
