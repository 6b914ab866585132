"""A hundred runs from different initial weights: worst, median and best test error (slide 53)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlrun.analysis.figures.style import BLACK, BLUE, COLOURS, LINES, figure, style_context
from dlrun.storage.results import Result
from dlrun.studies.study import CaptionedFigure, Claim, judge
from dlrun.terminal.format import counted

__all__ = ["MnistSeeds"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVEL = 0.05
"""Of the sign test of the median."""


@dataclass(frozen=True)
class MnistSeeds:
    """The slides' test errors of `runs` runs, as fractions."""

    worst: float = 0.013
    median: float = 0.010
    best: float = 0.0082
    runs: int = 100

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        errors = sorted(result.metrics["test/error"] for result in results if "test/error" in result.metrics)
        return [
            median_at_most(errors, self.median),
            worst_at_most(errors, self.worst, runs=self.runs),
            best_at_most(errors, self.best, runs=self.runs),
        ]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        errors = [result.metrics["test/error"] for result in results if "test/error" in result.metrics]
        if errors:
            caption = (
                f"Test errors of {counted(len(errors), 'run')} that differ only in their seed, and the numbers of the "
                "slides."
            )
            yield CaptionedFigure("seeds", histogram(errors, (self.best, self.median, self.worst)), caption)


def median_at_most(errors: Sequence[float], limit: float) -> Claim:
    """Test the median against `limit`, by a sign test.

    At 5 %: held if few enough runs lie above the limit, not held if few enough lie below. At least five runs are
    needed.
    """
    text = f"The median test error is at most {limit:.2%}."
    if not errors:
        return judge(text, None, "No run has been tested.")
    # under a median of exactly `limit`, a run lies above it with probability 1/2
    above, below = sum(e > limit for e in errors), sum(e < limit for e in errors)
    p_held, p_broken = binomial_tail(above, above + below), binomial_tail(below, above + below)
    held, broken = p_held <= LEVEL, p_broken <= LEVEL
    evidence = (
        f"Median {np.median(errors):.2%} over {counted(len(errors), 'run')}, {above} of them above the limit and "
        f"{below} below."
    )
    if not held and not broken:
        evidence += f" By the sign test, chance could explain that: p = {min(p_held, p_broken):.2g}, above {LEVEL:g}."
    return judge(text, True if held else False if broken else None, evidence)


def worst_at_most(errors: Sequence[float], limit: float, *, runs: int) -> Claim:
    """Test the worst of `runs` runs against `limit`."""
    text = f"The worst test error of {counted(runs, 'run')} is at most {limit:.2%}."
    if not errors:
        return judge(text, None, "No run has been tested.")
    # fewer than `runs` runs can refute it, not show it
    holds = False if not max(errors) <= limit else True if len(errors) >= runs else None
    few = f" It takes {counted(runs, 'run')} to show that none is worse." if holds is None else ""
    return judge(text, holds, f"The worst of {counted(len(errors), 'run')} has {max(errors):.2%}.{few}")


def best_at_most(errors: Sequence[float], limit: float, *, runs: int) -> Claim:
    """Test the best of `runs` runs against `limit`."""
    text = f"The best test error of {counted(runs, 'run')} is at most {limit:.2%}."
    if not errors:
        return judge(text, None, "No run has been tested.")
    # fewer than `runs` runs can show it, not refute it
    holds = True if min(errors) <= limit else False if len(errors) >= runs else None
    few = f" It takes {counted(runs, 'run')} to show that none is better." if holds is None else ""
    return judge(text, holds, f"The best of {counted(len(errors), 'run')} has {min(errors):.2%}.{few}")


def binomial_tail(k: int, n: int) -> float:
    """P(at most `k` heads in `n` fair throws).

    >>> binomial_tail(0, 5), binomial_tail(5, 5)
    (0.03125, 1.0)
    """
    return float(sum(math.comb(n, i) for i in range(k + 1)) / 2**n)


def histogram(errors: Sequence[float], slides: tuple[float, float, float]) -> Figure:
    """Draw a histogram of test errors, with the slides' three."""
    from matplotlib.ticker import MaxNLocator

    percent = 100 * np.array(errors)
    with style_context():
        fig = figure(7.2, 4.4)
        axes = fig.add_subplot()
        # a bar is five of the 10,000 test images wide, or more if that made over twenty bars
        width = max(0.05, float(np.ptp(percent)) / 20)
        edges = width * np.arange(math.floor(percent.min() / width), math.floor(percent.max() / width) + 2)
        axes.hist(percent, bins=edges.tolist(), color=BLUE, alpha=0.7, edgecolor="white")
        found = (percent.min(), np.median(percent), percent.max())
        words = ("best", "median", "worst")
        for i, (word, here, there) in enumerate(zip(words, found, slides, strict=True)):
            label = f"{word} {here:.2f} % (slides: {100 * there:.2g} %)"
            axes.axvline(here, color=(*COLOURS[1:], BLACK)[i], linestyle=LINES[i], label=label)
        axes.set(xlabel="test error in %", ylabel=f"runs (of {len(errors)})")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), ncols=1)
    return fig
