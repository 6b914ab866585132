"""Over-fitting: the validation loss turns up while the training loss still falls (book 3.6, figure 3.5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlrun.analysis.figures.style import BLACK, figure, style_context
from dlrun.analysis.simultaneous import half_widths
from dlrun.storage.journal import Curves
from dlrun.storage.results import Result
from dlrun.studies.seed_bands import at_common_steps, draw_curves
from dlrun.studies.study import CaptionedFigure, Claim, judge
from dlrun.terminal.format import counted

__all__ = ["Overfitting"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TurningPoint:
    """The minimum of the validation loss.

    The losses are (there, at the end).
    """

    step: int
    validation: tuple[float, float]
    training: tuple[float, float]


@dataclass(frozen=True)
class Overfitting:
    """The validation loss rises again, by `rise` or more.

    `rise` is a fraction of its minimum.
    """

    rise: float = 0.1

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        return [turns_up([result.curves() for result in results], rise=self.rise)]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        found = [curves for result in results if turning_point(curves := result.curves())]
        if found:
            yield CaptionedFigure(
                "overfitting", draw(found), "Training and validation loss: median and range over the seeds."
            )


def turning_point(curves: Curves) -> TurningPoint | None:
    """Find the minimum of the validation loss.

    The training loss there is that of the nearest point. None for fewer than three validations.

    >>> turning_point({"val/loss": [(1, 2.0), (2, 1.0), (3, 1.5)], "train/loss": [(1, 1.0), (2, 0.5), (3, 0.1)]})
    TurningPoint(step=2, validation=(1.0, 1.5), training=(0.5, 0.1))
    """
    validation, training = curves.get("val/loss", []), curves.get("train/loss", [])
    # with fewer, no point has two neighbours
    if len(validation) < 3 or not training:
        return None
    step, lowest = min(validation, key=lambda point: point[1])
    # training is logged at other steps than validation
    there = min(training, key=lambda point: abs(point[0] - step))[1]
    return TurningPoint(step, (lowest, validation[-1][1]), (there, training[-1][1]))


def turns_up(curves: Sequence[Curves], *, rise: float) -> Claim:
    """Held if every run over-fits, and chance does not explain it.

    Its validation loss rises by `rise` while its training loss falls. Of a loss that only fluctuates, too, the end lies
    above the minimum. So one step, the same for all seeds, has to be lower than the end significantly, whichever it is.
    """
    text = "The validation loss turns up while the training loss falls."
    found = [t for c in curves if (t := turning_point(c))]
    if not found:
        return judge(text, None, "No run has been validated three times.")
    held = [t.validation[1] >= (1 + rise) * t.validation[0] and t.training[1] < t.training[0] for t in found]
    evidence = f"On {sum(held)} of {counted(len(found), 'seed')} it ends {rise:.0%} or more above its minimum."
    middle = turning_point(median([c for c in curves if turning_point(c)]))
    if middle:
        evidence += (
            f" Median over the seeds: validation {middle.validation[0]:.3g} at step {middle.step:,}, "
            f"{middle.validation[1]:.3g} at the end; training {middle.training[0]:.3g} there, "
            f"{middle.training[1]:.3g} at the end."
        )
    if not all(held):
        return judge(text, False, evidence)
    if len(found) < 2:
        return judge(text, None, f"{evidence} One seed does not tell it from noise.")
    clearest = clearest_rise([c for c in curves if turning_point(c)])
    if clearest is None:
        return judge(text, None, f"{evidence} Without three common steps of positive losses there is no interval.")
    told_apart = clearest.low > 1
    evidence += (
        f" The end is {clearest.ratio:.3g} times step {clearest.step:,} (95 % interval {clearest.low:.3g} to "
        f"{clearest.high:.3g}, for all steps at once){'' if told_apart else ': chance could explain that'}."
    )
    return judge(text, True if told_apart else None, evidence)


@dataclass(frozen=True)
class Rise:
    """The last validation loss over that of a step: geometric mean, and its 95 % interval."""

    step: int
    ratio: float
    low: float
    high: float


def clearest_rise(curves: Sequence[Curves]) -> Rise | None:
    """The step whose rise to the end has the highest lower end; the intervals of all steps hold at once.

    >>> turn = {"val/loss": [(1, 2.0), (2, 1.0), (3, 1.5), (4, 2.0)]}
    >>> clearest_rise([turn, turn]).step, clearest_rise([turn])
    (2, None)
    """
    places, values = at_common_steps([c["val/loss"] for c in curves])
    runs, steps = values.shape
    if runs < 2 or steps < 3 or not (values > 0).all() or not np.isfinite(values).all():
        return None
    rises = np.log(values[:, -1:] / values[:, :-1]).T
    middle, half = rises.mean(1), half_widths(rises, groups=steps, selected=False)
    i = int((middle - half).argmax())
    ratio, low, high = np.exp([middle[i], middle[i] - half[i], middle[i] + half[i]]).tolist()
    return Rise(places[i], ratio, low, high)


def median(curves: Sequence[Curves]) -> Curves:
    """The median curves of both losses, at their common steps.

    >>> median([{"val/loss": [(1, 2.0), (2, 1.0)], "train/loss": []}, {"val/loss": [(2, 2.0)], "train/loss": []}])
    {'train/loss': [], 'val/loss': [(2, 1.5)]}
    """
    found = {name: at_common_steps([c[name] for c in curves]) for name in ("train/loss", "val/loss")}
    return {
        name: [*zip(steps, np.median(values, 0).tolist(), strict=True)] if steps else []
        for name, (steps, values) in found.items()
    }


def draw(curves: Sequence[Curves]) -> Figure:
    """Draw both losses, and the median's turning point."""
    with style_context():
        fig = figure(7.2, 4.6)
        axes = fig.add_subplot()
        for i, (word, name) in enumerate((("training", "train/loss"), ("validation", "val/loss"))):
            draw_curves(axes, [c[name] for c in curves], name=word, i=i, marked=True)
        middle = turning_point(median(curves))
        if middle:
            label = f"best step ({middle.step:,})"
            axes.axvline(middle.step, color=BLACK, linestyle=":", linewidth=1.6, label=label)
        axes.set(xlabel="optimizer step", ylabel="loss", ylim=(0, None))
        axes.margins(x=0.02)
        axes.legend()
    return fig
