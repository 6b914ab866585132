"""The history of a search: each trial's score and the best so far, in the order of the trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING

from dlrun.analysis.figures.scale import axis_label, scale_y
from dlrun.analysis.figures.style import BLACK, BLUE, figure, style_context
from dlrun.storage.results import Result
from dlrun.studies.study import CaptionedFigure, Claim

__all__ = ["SearchHistory"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SearchHistory:
    """A figure of a search by `monitor`; no claim."""

    monitor: str
    higher_is_better: bool = False

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        return []

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        points = history(results, self.monitor)
        if len(points) > 1:
            caption = (
                "The mean over the seeds of each finished trial, and the best so far. Gaps are pruned or failed trials."
            )
            yield CaptionedFigure(
                "search", draw(points, self.monitor, best=max if self.higher_is_better else min), caption
            )


def history(results: Sequence[Result], monitor: str) -> list[tuple[int, float]]:
    """Each trial's first job, from 1, and mean over seeds."""
    groups: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.job.n):
        if isfinite(result.metrics.get(monitor, float("nan"))):
            groups.setdefault(result.job.group, []).append(result)
    # jobs are numbered from 0, people count from 1
    return [(rs[0].job.n + 1, fmean(r.metrics[monitor] for r in rs)) for rs in groups.values()]


def draw(points: Sequence[tuple[int, float]], monitor: str, *, best: Callable[[float, float], float]) -> Figure:
    """Draw the trials, and the best so far as steps."""
    from matplotlib.ticker import MaxNLocator

    numbers, values = zip(*points, strict=True)
    so_far = [*accumulate(values, best)]
    with style_context():
        fig = figure(6.8, 4.2)
        axes = fig.add_subplot()
        axes.plot(numbers, values, "o", color=BLUE, markersize=7, fillstyle="none", label="trial")
        # "post": a best holds until a better trial
        axes.step(numbers, so_far, where="post", color=BLACK, label="best so far")
        scale_y(axes, values, monitor)
        axes.set(xlabel="job, in the order of the search", ylabel=axis_label(monitor))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return fig
