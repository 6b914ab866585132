"""Depth: layers of a 2×2 matrix and tanh deform the plane until a line separates the classes (figure 3.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlrun.analysis.figures.style import BLACK, COLOURS, MARKERS, figure, style_context
from dlrun.storage.results import Result
from dlrun.studies.study import CaptionedFigure, Claim, judge
from dlrun.terminal.format import counted

__all__ = ["Depth"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Boundary:
    """The decision boundary {h: weights·h + bias = 0}."""

    weights: tuple[float, float]
    bias: float


@dataclass(frozen=True)
class Depth:
    """The selected run classifies every training point correctly."""

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        return [all_right([r for r in results if {"train/error", "val/loss"} <= r.metrics.keys()])]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        chosen = choose([r for r in results if "val/loss" in r.metrics])
        if chosen:
            layers, grid, classes, boundary = _read_layers(chosen)
            caption = (
                f"The training points and the plane after d layers, d = 0 … {len(layers) - 1} (seed {chosen.job.seed}, "
                "selected by validation). The last panel shows the line that separates the classes."
            )
            yield CaptionedFigure("depth", draw_layers(layers, grid, classes, boundary), caption)


def choose(results: Sequence[Result]) -> Result | None:
    """The run with the least validation loss."""
    return min(results, key=lambda r: r.metrics["val/loss"], default=None)


def all_right(results: Sequence[Result]) -> Claim:
    """Held if the selected run has no training error."""
    text = "All training points are on the right side of the line."
    chosen = choose(results)
    if chosen is None:
        return judge(text, None, "No run has a training error and a validation loss.")
    errors = [r.metrics["train/error"] for r in results]
    right = sum(e == 0 for e in errors)
    evidence = (
        f"The run that validation selects (seed {chosen.job.seed}) gets {chosen.metrics['train/error']:.2%} of the "
        f"training points wrong. {right} of {counted(len(errors), 'seed')} {'gets' if right == 1 else 'get'} all "
        f"right; the worst gets {max(errors):.1%} wrong."
    )
    return judge(text, chosen.metrics["train/error"] == 0, evidence)


def draw_layers(layers: Sequence[Tensor], grid: Sequence[Tensor], classes: Tensor, boundary: Boundary) -> Figure:
    """Draw the points after each layer, over the deformed grid.

    `layers` are [N, 2] each, `grid` [lines, points, 2] each, `classes` [N].
    """
    columns = 3
    rows = -(-len(layers) // columns)
    with style_context():
        fig = figure(3.3 * columns, 3.3 * rows)
        for d, (points, lines) in enumerate(zip(layers, grid, strict=True)):
            axes = fig.add_subplot(rows, columns, d + 1)
            _panel(axes, points, lines, classes)
            axes.set_title(f"d = {d}")
            if d == len(layers) - 1:
                _draw_boundary(axes, boundary)
    return fig


def _panel(axes: Axes, points: Tensor, lines: Tensor, classes: Tensor) -> None:
    for one in lines:
        axes.plot(*one.T.numpy(), color="#bbbbbb", linewidth=0.6, zorder=1)
    for c in range(int(classes.max()) + 1):
        x, y = points[classes == c].numpy().T
        axes.scatter(x, y, s=20, color=COLOURS[c], marker=MARKERS[c], edgecolors="white", linewidths=0.4, zorder=2)
    low, high = points.amin(0), points.amax(0)
    # square panels with equal scales, or the deformation would not be comparable
    middle, reach = (low + high) / 2, 0.58 * float((high - low).max())
    left, bottom = (middle - reach).tolist()
    axes.set(xlim=(left, left + 2 * reach), ylim=(bottom, bottom + 2 * reach))
    axes.set(aspect="equal", xlabel="$h_1$", ylabel="$h_2$")
    axes.locator_params(nbins=4)
    axes.grid(False)


def _draw_boundary(axes: Axes, boundary: Boundary) -> None:
    (a, b), limits = boundary.weights, (axes.get_xlim(), axes.get_ylim())
    # equal weights of both classes draw no line
    if a or b:
        nearest = (-boundary.bias * a / (a * a + b * b), -boundary.bias * b / (a * a + b * b))
        # through the line's point nearest to 0, across its normal (a, b)
        axes.axline(nearest, (nearest[0] - b, nearest[1] + a), color=BLACK, linewidth=2, zorder=3)
    axes.set(xlim=limits[0], ylim=limits[1])


def _read_layers(result: Result) -> tuple[list[Tensor], list[Tensor], Tensor, Boundary]:
    from dlrun.runs.reload.loaded import load

    run = load(str(result.run.path))
    batch = run.data.train.gather(torch.arange(len(run.data.train)))
    x, y = batch.x.cpu(), batch.y.cpu()
    model = run.model.cpu()
    # a grid of 21 × 21 lines of 80 points around the data
    ends = x.amin(0) - 0.2, x.amax(0) + 0.2
    across, up = (torch.linspace(float(a), float(b), 21) for a, b in zip(*ends, strict=True))
    fine = torch.linspace(0, 1, 80)
    level = torch.stack([across[0] + fine * (across[-1] - across[0]), torch.zeros(80)], 1)
    upright = torch.stack([torch.zeros(80), up[0] + fine * (up[-1] - up[0])], 1)
    lines = torch.stack(
        [*(level + torch.tensor([0, v]) for v in up), *(upright + torch.tensor([u, 0]) for u in across)]
    )
    with torch.no_grad():
        layers = model.trajectory(x)  # type: ignore[operator]
        grid = [h.unflatten(0, lines.shape[:2]) for h in model.trajectory(lines.flatten(0, 1))]  # type: ignore[operator]
        # class 1 wins where (w₁ - w₀)·h + b₁ - b₀ > 0
        weight, bias = model.classifier.weight, model.classifier.bias  # type: ignore[union-attr]
        normal, offset = weight[1] - weight[0], bias[1] - bias[0]  # type: ignore[index]
    return layers, grid, y, Boundary((float(normal[0]), float(normal[1])), float(offset))
