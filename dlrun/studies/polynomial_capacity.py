"""Capacity: polynomials of degree 0 to 9, from under-fitting to over-fitting (slides 47-50)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dlrun.analysis.figures.scale import plain_ticks
from dlrun.analysis.figures.style import BLACK, BLUE, RED, figure, style_context
from dlrun.analysis.simultaneous import half_widths
from dlrun.storage.results import Result
from dlrun.studies.seed_bands import draw_tables
from dlrun.studies.study import CaptionedFigure, Claim, judge
from dlrun.studies.table import MetricTable, all_values, argmin, common_seeds, means, tabulate
from dlrun.terminal.format import counted, plural

__all__ = ["PolynomialCapacity"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEY = "model.degree"
ROUNDING = 1e-7  # a rise up to this counts as none: the float32 rounding of values around 1


@dataclass(frozen=True)
class Fit:
    """A fitted polynomial, its data and f*; all [N]."""

    degree: int
    x: Tensor
    y: Tensor
    grid: Tensor
    truth: Tensor | None
    fitted: Tensor


@dataclass(frozen=True)
class PolynomialCapacity:
    """The three errors of polynomials over their degree.

    Training error falls, test error is U-shaped, and validation finds its minimum.
    """

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        train, validation, test = (tabulate(results, KEY, f"{split}/mse") for split in ("train", "val", "test"))
        return [never_rises(train), minimum_inside(test), validation_finds(validation, test)]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        fits = [_read_fit(result) for result in first_draw(results)]
        if fits:
            seed = first_draw(results)[0].job.seed
            yield CaptionedFigure(
                "pictures", draw_fits(fits), f"Training data, f* and the fit, one panel per degree (draw {seed})."
            )
        tables = {
            word: tabulate(results, KEY, f"{split}/mse")
            for word, split in (("training", "train"), ("validation", "val"), ("test", "test"))
        }
        tables = {word: table for word, table in tables.items() if table}
        if tables:
            yield CaptionedFigure(
                "capacity",
                draw_capacity(tables),
                "Mean squared error against the degree: median and range over the draws.",
            )


def never_rises(train: MetricTable) -> Claim:
    """Held if the training error never rises with the degree."""
    text = "The training error never rises with the degree."
    rises = [b[seed] - a[seed] for a, b in pairwise(train.values()) for seed in a if seed in b]
    if not rises:
        return judge(text, None, "No draw has two degrees.")
    worst = max(rises)
    draws = counted(len({seed for row in train.values() for seed in row}), "draw")
    evidence = (
        f"Over {counted(len(rises), 'step')} from a degree to the next, on {draws}, the largest change is {worst:+.2g}"
    )
    # `all` below, not `any` above: a rise that is nan must not count as a fall
    return judge(text, all(rise <= ROUNDING for rise in rises), f"{evidence} (allowed for rounding: {ROUNDING:g}).")


def minimum_inside(test: MetricTable) -> Claim:
    """Held if an inner degree has significantly less test error than both ends.

    Not held if an end has significantly less than all degrees inside. Errors are compared by their logarithms: at high
    degrees they differ by factors from draw to draw.
    """
    text = "The test error has its minimum inside."
    draws = common_seeds(test)
    found = means(test, draws)
    if len(found) < 3 or not draws:
        return judge(text, None, "Fewer than three degrees have been tested on a common draw.")
    degrees = [*found]
    ends, inner = (degrees[0], degrees[-1]), degrees[1:-1]
    ratios = _log_ratios(test, draws)
    # the degree inside that comes nearest to being below both ends
    lowest = min(inner, key=lambda d: max(ratios.interval(d, end)[1] for end in ends))
    holds, told = None, ratios.describe(lowest, ends)
    if all(ratios.below(lowest, end) for end in ends):
        holds = True
    else:
        for end in (end for end in ends if all(ratios.below(end, d) for d in inner)):
            holds, told = False, ratios.describe(min(inner, key=lambda d: ratios.interval(d, end)[0]), [end])
    shown = ", ".join(f"{found[d]:.4f} at degree {d}" for d in dict.fromkeys([ends[0], argmin(found), ends[1]]))
    return judge(text, holds, f"Mean test MSE over {counted(len(draws), 'draw')}: {shown}. {told}")


def validation_finds(validation: MetricTable, test: MetricTable) -> Claim:
    """Held if both choose degrees at most one apart, and the choice is significantly better than an end.

    Without that, of degrees that are all alike, three in ten such choices would agree.
    """
    text = "The degree that validation selects is within one of the best by test."
    validated, tested = (means(table, common_seeds(table)) for table in (validation, test))
    draws = common_seeds(test)
    if len(tested) < 3 or validated.keys() != tested.keys() or not common_seeds(validation) or not draws:
        return judge(text, None, "Fewer than three degrees have a validation and a test error on a common draw.")
    chosen, best = argmin(validated), argmin(tested)
    ratios = _log_ratios(test, draws)
    ends = [end for end in (min(tested), max(tested)) if end != chosen]
    telling = all(ratios.below(chosen, end) for end in ends)
    evidence = (
        f"Selected: {chosen} (test MSE {tested[chosen]:.4f}); best: {best} ({tested[best]:.4f}). "
        f"{ratios.describe(chosen, ends)}"
    )
    return judge(text, False if abs(chosen - best) > 1 else True if telling else None, evidence)


@dataclass(frozen=True)
class _LogRatios:
    """The logarithms of the errors by degree and draw, compared with an end of the range."""

    logs: dict[Any, np.ndarray[Any, Any]]
    draws: int

    def below(self, one: Any, other: Any) -> bool:
        """Whether one degree's error is below another's, on the level of all comparisons with an end."""
        return self.interval(one, other)[1] < 0

    def interval(self, one: Any, other: Any) -> tuple[float, float]:
        """The 95 % interval of the mean of log(one / other); it holds for all comparisons with an end at once."""
        difference = self.logs[one] - self.logs[other]
        if self.draws < 2 or not np.isfinite(difference).all():
            return -math.inf, math.inf
        ends = (next(iter(self.logs)), [*self.logs][-1])
        rows = [self.logs[d] - self.logs[end] for end in ends for d in self.logs if d != end]
        typical = float(np.median([row.std(ddof=1) for row in rows if np.isfinite(row).all()]))
        half = float(half_widths(difference, groups=len(self.logs) - 1, selected=False, typical=typical))
        return float(difference.mean()) - half, float(difference.mean()) + half

    def describe(self, one: Any, ends: Sequence[Any]) -> str:
        """A degree's error as a ratio to each end's, with the intervals; names the ends not told apart."""
        if self.draws < 2:
            return f"One draw does not tell degree {one} from {_degrees(ends)}."
        shown = []
        for end in ends:
            low, high = self.interval(one, end)
            if math.isinf(low):
                shown.append(f"at degree {end}: unknown, since a value is not finite")
                continue
            ratio, *interval = (f"{math.exp(log):.3g}" for log in ((low + high) / 2, low, high))
            shown.append(f"at degree {end}: {ratio} ({' to '.join(interval)})")
        alike = [end for end in ends if not self.below(one, end) and not self.below(end, one)]
        return (
            f"Test MSE at degree {one} divided by that {'; '.join(shown)}. Geometric means, with 95 % intervals for "
            f"all degrees at once.{f' Not told apart from {_degrees(alike)}.' if alike else ''}"
        )


def _degrees(listed: Sequence[Any]) -> str:
    return f"{plural('degree', len(listed))} {' and '.join(map(str, listed))}"


def _log_ratios(test: MetricTable, draws: Sequence[Any]) -> _LogRatios:
    # an exact fit has an error of zero, or of rounding
    logs = {degree: np.log([max(row[draw], ROUNDING**2) for draw in draws]) for degree, row in test.items()}
    return _LogRatios(logs, len(draws))


def first_draw(results: Sequence[Result]) -> list[Result]:
    """The runs of the first draw with most degrees."""
    draws: dict[int, dict[int, Result]] = {}
    for result in results:
        draws.setdefault(result.job.seed, {})[result.value(KEY)] = result
    # of equally many degrees, the lowest seed
    first = max(draws, key=lambda seed: (len(draws[seed]), -seed), default=None)
    return [] if first is None else [draws[first][degree] for degree in sorted(draws[first])]


def draw_fits(fits: Sequence[Fit]) -> Figure:
    """Draw each fit in a panel.

    All panels have the same frame, which a fit may leave.
    """
    columns = min(5, len(fits))
    rows = -(-len(fits) // columns)
    with style_context():
        fig = figure(3.1 * columns, 2.9 * rows + 0.5)
        for i, fit in enumerate(fits):
            axes = fig.add_subplot(rows, columns, i + 1)
            _panel(axes, fit)
            axes.set(ylabel="y" if i % columns == 0 else None, xlabel="x" if i >= len(fits) - columns else None)
            axes.tick_params(labelleft=i % columns == 0, labelbottom=i >= len(fits) - columns)
        handles, labels = fig.axes[0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=15)
    return fig


def draw_capacity(tables: dict[str, MetricTable]) -> Figure:
    """Draw the errors over the degree, on a logarithmic axis."""
    with style_context():
        fig = figure(6.8, 4.6)
        axes = fig.add_subplot()
        draw_tables(axes, tables)
        axes.set(xlabel="degree", ylabel="mean squared error", yscale="log")
        plain_ticks(axes.yaxis, all_values(tables))
        axes.set_xticks([*next(iter(tables.values()))])
        axes.legend()
    return fig


def _panel(axes: Axes, fit: Fit) -> None:
    axes.scatter(fit.x.numpy(), fit.y.numpy(), s=24, color=BLUE, alpha=0.8, label="training data", zorder=3)
    if fit.truth is not None:
        axes.plot(fit.grid.numpy(), fit.truth.numpy(), color=BLACK, linestyle="--", linewidth=1.6, label="f*")
    axes.plot(fit.grid.numpy(), fit.fitted.numpy(), color=RED, linewidth=2.2, label="fit")
    # f* lies in [-0.3, 1.3]; high degrees swing far beyond
    axes.set(title=f"degree {fit.degree}", xlim=(0, 1), ylim=(-0.75, 1.75), yticks=(-0.5, 0.5, 1.5))
    axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))


def _read_fit(result: Result) -> Fit:
    """Read a run from its folder."""
    from dlrun.runs.reload.loaded import load

    run = load(str(result.run.path))
    grid = torch.linspace(0, 1, 400)[:, None]
    x, y = run.data.train.gather(torch.arange(len(run.data.train)))
    with torch.no_grad():
        fitted = run.model(grid)
    truth = run.data.truth(grid)[:, 0] if run.data.truth else None
    return Fit(result.value(KEY), x[:, 0].cpu(), y[:, 0].cpu(), grid[:, 0], truth, fitted[:, 0].cpu())
