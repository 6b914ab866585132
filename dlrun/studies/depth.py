"""The value of depth: layers of a 2×2 matrix and tanh deform the plane until a line parts the classes (figure 3.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlrun.analysis.figures.style import BLACK, COLOURS, MARKERS, figure, style_context
from dlrun.storage.results import Result
from dlrun.studies.study import CaptionedFigure, Claim, judge

__all__ = ["Depth"]

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Boundary:
    """The points h of the plane where weights·h + bias = 0."""

    weights: tuple[float, float]
    bias: float


@dataclass(frozen=True)
class Depth:
    """The run that validation chooses has every training point on the right side."""

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        """Return whether the chosen run gets every training point right, and say how many others do."""
        return [all_right([r for r in results if {"train/error", "val/loss"} <= r.metrics.keys()])]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        """Yield the panels of the chosen run."""
        chosen = choose([r for r in results if "val/loss" in r.metrics])
        if chosen:
            places, grid, classes, line = _deformed(chosen)
            caption = (
                f"The training points and the plane after d layers, d = 0 … {len(places) - 1} (seed {chosen.job.seed}, "
                "chosen by validation), and in the last panel the line that parts the classes."
            )
            yield CaptionedFigure("depth", panels(places, grid, classes, line), caption)


def choose(results: Sequence[Result]) -> Result | None:
    """Return the run with the least validation loss."""
    return min(results, key=lambda r: r.metrics["val/loss"], default=None)


def all_right(results: Sequence[Result]) -> Claim:
    """Return whether the run that validation chooses has no training point on the wrong side."""
    text = "All training points are on the right side of the line."
    chosen = choose(results)
    if chosen is None:
        return judge(text, None, "No run has a training error and a validation loss.")
    errors = [r.metrics["train/error"] for r in results]
    right = sum(e == 0 for e in errors)
    evidence = (
        f"{chosen.metrics['train/error']:.2%} of the training points are wrong in the run that validation chooses "
        f"(seed {chosen.job.seed}); {right} of {len(errors)} seeds get all right, the worst {max(errors):.1%} wrong."
    )
    return judge(text, chosen.metrics["train/error"] == 0, evidence)


def panels(places: Sequence[Tensor], grid: Sequence[Tensor], classes: Tensor, line: Boundary) -> Figure:
    """Draw the points [N, 2] of classes [N] after each layer, over what became of a grid [lines, points, 2]."""
    columns = 3
    rows = -(-len(places) // columns)
    with style_context():
        fig = figure(3.3 * columns, 3.3 * rows)
        for d, (points, lines) in enumerate(zip(places, grid, strict=True)):
            axes = fig.add_subplot(rows, columns, d + 1)
            _panel(axes, points, lines, classes)
            axes.set_title(f"d = {d}")
            if d == len(places) - 1:
                _draw_line(axes, line)
    return fig


def _panel(axes: Axes, points: Tensor, lines: Tensor, classes: Tensor) -> None:
    for one in lines:
        axes.plot(*one.T.numpy(), color="#bbbbbb", linewidth=0.6, zorder=1)
    for c in range(int(classes.max()) + 1):
        x, y = points[classes == c].numpy().T
        axes.scatter(x, y, s=20, color=COLOURS[c], marker=MARKERS[c], edgecolors="white", linewidths=0.4, zorder=2)
    low, high = points.amin(0), points.amax(0)
    middle, reach = (low + high) / 2, 0.58 * float((high - low).max())
    left, bottom = (middle - reach).tolist()
    axes.set(xlim=(left, left + 2 * reach), ylim=(bottom, bottom + 2 * reach))
    axes.set(aspect="equal", xlabel="$h_1$", ylabel="$h_2$")
    axes.locator_params(nbins=4)
    axes.grid(False)


def _draw_line(axes: Axes, line: Boundary) -> None:
    (a, b), limits = line.weights, (axes.get_xlim(), axes.get_ylim())
    if a or b:
        nearest = (-line.bias * a / (a * a + b * b), -line.bias * b / (a * a + b * b))
        axes.axline(nearest, (nearest[0] - b, nearest[1] + a), color=BLACK, linewidth=2, zorder=3)
    axes.set(xlim=limits[0], ylim=limits[1])


def _deformed(result: Result) -> tuple[list[Tensor], list[Tensor], Tensor, Boundary]:
    """Return what the panels of a run show, from its folder."""
    from dlrun.runs.reload import load

    run = load(str(result.run.path))
    batch = run.data.train.gather(torch.arange(len(run.data.train)))
    x, y = batch.x.cpu(), batch.y.cpu()
    model = run.model.cpu()
    ends = x.amin(0) - 0.2, x.amax(0) + 0.2
    across, up = (torch.linspace(float(a), float(b), 21) for a, b in zip(*ends, strict=True))
    fine = torch.linspace(0, 1, 80)
    level = torch.stack([across[0] + fine * (across[-1] - across[0]), torch.zeros(80)], 1)
    upright = torch.stack([torch.zeros(80), up[0] + fine * (up[-1] - up[0])], 1)
    lines = torch.stack(
        [*(level + torch.tensor([0, v]) for v in up), *(upright + torch.tensor([u, 0]) for u in across)]
    )
    with torch.no_grad():
        places = model.trajectory(x)  # type: ignore[operator]
        grid = [h.unflatten(0, lines.shape[:2]) for h in model.trajectory(lines.flatten(0, 1))]  # type: ignore[operator]
        weight, bias = model.classifier.weight, model.classifier.bias  # type: ignore[union-attr]
        normal, offset = weight[1] - weight[0], bias[1] - bias[0]  # type: ignore[index]
    return places, grid, y, Boundary((float(normal[0]), float(normal[1])), float(offset))
