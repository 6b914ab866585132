"""Gradient descent's picture: level curves of a loss of two parameters, and paths on it (book 3.3, figure 3.2).

The loss is the mean squared error of a line, w₀ + w₁·x, over the training points: a quadratic, with curvatures λ along
two axes. Gradient descent multiplies the distance along an axis by 1 - ηλ a step, so it converges at rates η below 2/λ
of the largest curvature and bounces away above. With momentum μ the bound is 2·(1 + μ)/λ (Polyak 1964).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dlrun.analysis.figures.style import BLACK, COLOURS, figure, style_context
from dlrun.storage.journal import Curves
from dlrun.storage.results import Result
from dlrun.studies.study import CaptionedFigure, Claim, judge

__all__ = ["GradientPaths"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
PARAMETERS = tuple(f"parameter/coefficients.{i}" for i in range(2))
START = (0.0, 0.0)
"""`model=polynomial` begins here."""
ROUNDING = 1e-4
"""Outputs are of single precision: so far may a path be from its closed form, relative to its reach."""


@dataclass(frozen=True)
class Surface:
    """The loss `least` + ½·(w - w*)ᵀ·H·(w - w*), with w* `lowest` [2] and H `hessian` [2, 2]."""

    hessian: Array
    lowest: Array
    least: float

    @property
    def curvature(self) -> float:
        """The largest."""
        return float(np.linalg.eigvalsh(self.hessian)[-1])

    def excess(self, points: Array) -> Array:
        """The loss above the least one, at points [..., 2]."""
        away = points - self.lowest
        found: Array = 0.5 * np.einsum("...i,ij,...j->...", away, self.hessian, away)
        return found

    def descend(self, start: Array, rate: float, steps: int) -> Array:
        """The path of gradient descent in closed form, [steps + 1, 2]."""
        curvatures, axes = np.linalg.eigh(self.hessian)
        factors = (1 - rate * curvatures) ** np.arange(steps + 1)[:, None]
        found: Array = self.lowest + (factors * ((start - self.lowest) @ axes)) @ axes.T
        return found


def fit_surface(x: Array, y: Array) -> Surface:
    """The mean squared error of a line through points (x, y), as a function of its two coefficients.

    >>> fit_surface(np.array([0.0, 2.0]), np.array([1.0, 5.0])).lowest.round(9).tolist()
    [1.0, 2.0]
    """
    features = np.stack([np.ones_like(x), x], axis=1)
    lowest = np.linalg.lstsq(features, y, rcond=None)[0]
    return Surface(2 * features.T @ features / len(x), lowest, float(np.square(features @ lowest - y).mean()))


@dataclass(frozen=True)
class Path:
    """The parameters of a run after each step, [steps + 1, 2]; `whole`: each step saw all samples."""

    rule: str
    rate: float
    momentum: float
    whole: bool
    points: Array

    @property
    def name(self) -> str:
        """As a panel's title says it."""
        kind = "Adam" if self.rule == "Adam" else "momentum" if self.momentum else "gradient descent"
        return f"{kind if self.whole else kind.replace('gradient descent', 'SGD')}, rate {self.rate:g}"


@dataclass(frozen=True)
class GradientPaths:
    """The regimes of a rate: it stalls if more than `stalled` of the loss above the least is left at the end.

    `shown` is the rate at which the paths of SGD, momentum and Adam are drawn.
    """

    stalled: float = 0.5
    shown: float = 0.1

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        paths, surface = read_paths(results), read_surface(results)
        return [
            self.stalls(paths, surface),
            self.has_a_bound(paths, surface),
            self.is_closed_form(paths, surface),
            self.momentum_has_another(paths, surface),
        ]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        paths, surface = read_paths(results), read_surface(results)
        if surface and (picked := self.pick(paths, surface)):
            caption = (
                "Level curves of the loss of a line's two coefficients, and the paths from (0, 0). Above: gradient "
                f"descent stalls, converges, bounces; its bound is 2/λ = {2 / surface.curvature:.3g}. The cross is the "
                "minimum."
            )
            yield CaptionedFigure("paths", draw(picked, surface), caption)

    def pick(self, paths: Sequence[Path], surface: Surface) -> list[Path]:
        """Gradient descent at the least rate and on both sides of its bound; the others at `shown`."""
        descent = _descent(paths)
        below = [p for p in descent if p.rate < 2 / surface.curvature]
        above = [p for p in descent if p.rate >= 2 / surface.curvature]
        regimes = {id(p): p for p in (*below[:1], *below[-1:], *above[:1])}
        at_shown = [p for p in paths if math.isclose(p.rate, self.shown)]
        others = [
            *(p for p in at_shown if not p.whole and p.rule == "SGD" and not p.momentum),
            *(p for p in at_shown if p.whole and p.rule == "SGD" and p.momentum),
            *(p for p in at_shown if p.whole and p.rule == "Adam"),
        ]
        return [*regimes.values(), *others]

    def stalls(self, paths: Sequence[Path], surface: Surface | None) -> Claim:
        """Held if the smallest rate stalls."""
        text = "Too small a rate stalls."
        descent = _descent(paths)
        if surface is None or len(descent) < 2:
            return judge(text, None, "It takes gradient descent at two rates.")
        left = _left(descent[0], surface)
        evidence = f"At {descent[0].rate:g}, {left:.0%} of the loss above the least is left after {_steps(descent[0])}"
        return judge(text, left > self.stalled, f"{evidence} steps (stalled: more than {self.stalled:.0%}).")

    def has_a_bound(self, paths: Sequence[Path], surface: Surface | None) -> Claim:
        """Held if gradient descent comes closer at all rates below 2/λ, and goes away at all above."""
        text = "Gradient descent converges at rates below 2/λ, λ the largest curvature, and bounces away above."
        return _bounded(text, _descent(paths), surface, lambda path: 2.0)

    def momentum_has_another(self, paths: Sequence[Path], surface: Surface | None) -> Claim:
        """Held if momentum converges at a rate at which gradient descent does not."""
        text = "With momentum μ it converges where gradient descent bounces, at rates below 2·(1 + μ)/λ."
        moving = [p for p in paths if p.whole and p.rule == "SGD" and p.momentum]
        if surface is None or not any(p.rate > 2 / surface.curvature for p in moving):
            return judge(text, None, "It takes momentum at a rate above 2/λ.")
        return _bounded(text, moving, surface, lambda path: 2 * (1 + path.momentum), both_sides=False)

    def is_closed_form(self, paths: Sequence[Path], surface: Surface | None) -> Claim:
        """Held if each path of gradient descent is the one of the formula."""
        text = "Its path is w* + (1 - ηλ)ᵗ·(w - w*) along each axis of the level curves."
        descent = _descent(paths)
        if surface is None or not descent:
            return judge(text, None, "It takes gradient descent.")
        off = max(_distance(path, surface) for path in descent)
        evidence = f"The furthest point of {len(descent)} paths is off by {off:.2g} of its path's reach"
        return judge(text, off < ROUNDING, f"{evidence} (rounding: below {ROUNDING:g}).")


def read_paths(results: Sequence[Result]) -> list[Path]:
    """The paths of the runs that logged two parameters, by rate."""
    found = []
    for result in results:
        points = _points(result.curves())
        if points is not None:
            target, size = str(result.value("optimizer._target_")), result.value("trainer.batch_size")
            momentum = float(result.value("optimizer.momentum") or 0.0)
            found.append(
                Path(target.rpartition(".")[2], float(result.value("optimizer.lr")), momentum, size is None, points)
            )
    return sorted(found, key=lambda path: path.rate)


def read_surface(results: Sequence[Result]) -> Surface | None:
    """The loss over the training points of the runs, which all share them."""
    found = next((result for result in results if _points(result.curves()) is not None), None)
    if found is None:
        return None
    from dlrun.runs.reload.loaded import load

    train = load(str(found.run.path)).data.train
    batch = train.gather(torch.arange(len(train)))
    return fit_surface(*(t.double().flatten().cpu().numpy() for t in (batch.x, batch.y)))


def draw(paths: Sequence[Path], surface: Surface) -> Figure:
    """Draw each path over the level curves, a panel each."""
    columns = min(3, len(paths))
    rows = -(-len(paths) // columns)
    with style_context():
        fig = figure(4.6 * columns, 4.1 * rows)
        for i, path in enumerate(paths):
            _panel(fig.add_subplot(rows, columns, i + 1), path, surface, COLOURS[i % len(COLOURS)])
    return fig


def _panel(axes: Axes, path: Path, surface: Surface, colour: str) -> None:
    # as far beyond the minimum as the start is before it: a path that bounces leaves the picture
    reach = 1.7 * float(np.abs(surface.lowest - START).max())
    x, y = (np.linspace(centre - reach, centre + reach, 161) for centre in surface.lowest)
    excess = surface.excess(np.stack(np.meshgrid(x, y), axis=-1))
    # evenly spaced roots: a quadratic's level curves are then evenly spaced
    levels = (np.linspace(0, math.sqrt(float(excess.max())), 16)[1:]) ** 2
    axes.contour(x, y, excess, levels=levels, colors="#bbbbbb", linewidths=0.9)
    axes.plot(*path.points.T, color=colour, linewidth=1.2, marker="o", ms=3)
    axes.plot(*path.points[0], color=BLACK, marker="o", ms=7)
    axes.plot(*surface.lowest, color=BLACK, marker="x", ms=9, mew=2)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xlabel="$w_0$", ylabel="$w_1$", title=path.name)
    axes.set_aspect("equal")
    axes.locator_params(nbins=5)
    axes.grid(False)


def _points(curves: Curves) -> Array | None:
    found = [[value for _, value in curves.get(name, ())] for name in PARAMETERS]
    return np.array([START, *zip(*found, strict=True)]) if all(found) else None


def _descent(paths: Sequence[Path]) -> list[Path]:
    return [p for p in paths if p.whole and p.rule == "SGD" and not p.momentum]


def _steps(path: Path) -> int:
    return len(path.points) - 1


def _left(path: Path, surface: Surface) -> float:
    """The share of the loss above the least that is left at the end."""
    ends = surface.excess(path.points[[0, -1]])
    return float(ends[1] / ends[0])


def _distance(path: Path, surface: Surface) -> float:
    expected = surface.descend(path.points[0], path.rate, _steps(path))
    return float(np.abs(path.points - expected).max() / np.abs(expected - surface.lowest).max())


def _bounded(
    text: str,
    paths: Sequence[Path],
    surface: Surface | None,
    bound: Callable[[Path], float],
    *,
    both_sides: bool = True,
) -> Claim:
    """Held if the paths at rates below bound/λ come closer to the least loss, and those above go away."""
    if surface is None:
        return judge(text, None, "It takes runs that logged two parameters.")
    inside = [path.rate < bound(path) / surface.curvature for path in paths]
    if not paths or (both_sides and len({*inside}) < 2):
        return judge(text, None, "It takes rates on both sides of the bound.")
    left = [_left(path, surface) for path in paths]
    ends = "; ".join(f"{path.rate:g}: {share:.2g}" for path, share in zip(paths, left, strict=True))
    evidence = f"λ = {surface.curvature:.4g}, the bound is {bound(paths[0]) / surface.curvature:.4g}. Of the loss above"
    holds = all((share < 1) == below for share, below in zip(left, inside, strict=True))
    return judge(text, holds, f"{evidence} the least is left, by rate: {ends}.")
