"""A learned function: of one or two variables drawn whole, of more by its values beside the true ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlrun.analysis.figures.style import BLACK, BLUE, COLOURS, MARKERS, RED, figure, style_context

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PANELS, POINTS = 3, 2000
"""Targets that are drawn, and points of each."""
GRID = 240  # points along each side of the plane


def fit_1d(x: Tensor, y: Tensor, model_x: Tensor, model_y: Tensor, truth: Tensor | None = None) -> Figure:
    """Draw data (x, y), a fit and f*; all [N].

    The fit is (model_x, model_y). The frame is that of data and f*: a fit that leaves it is cut, so that it does not
    shrink the rest.
    """
    with style_context():
        fig = figure(6.6, 4.4)
        axes = fig.add_subplot()
        if truth is not None:
            axes.plot(model_x.numpy(), truth.numpy(), color=BLACK, linestyle="--", linewidth=1.6, label="f*")
        axes.plot(model_x.numpy(), model_y.numpy(), color=RED, label="fit")
        # large dots of many points would merge
        size = 26 if len(x) <= 200 else 6
        axes.scatter(x.numpy(), y.numpy(), s=size, color=BLUE, alpha=0.8, label="training data", zorder=3)
        frame = y if truth is None else torch.cat([y, truth.to(y)])
        low, high = float(frame.min()), float(frame.max())
        room = 0.25 * (high - low or 1.0)
        axes.set(xlabel="x", ylabel="y", ylim=(low - room, high + room))
        axes.legend()
    return fig


def predicted(true: Tensor, found: Tensor, names: Sequence[str]) -> Figure:
    """Draw predicted values over the true ones, [N, K] both; the first of the K in a panel each, with R².

    Values of the two that are no numbers are left out.
    """
    panels = min(true.shape[1], PANELS)
    with style_context():
        fig = figure(4.2 * panels + 0.6, 4.4)
        for place in range(panels):
            axes = fig.add_subplot(1, panels, place + 1)
            x, y = (values[:, place].double() for values in (true, found))
            counted = x.isfinite() & y.isfinite()
            x, y = x[counted], y[counted]
            # evenly spaced: more points hide each other
            shown = torch.linspace(0, max(len(x) - 1, 0), min(len(x), POINTS)).long()
            size = 26 if len(shown) <= 200 else 6
            axes.scatter(x[shown].numpy(), y[shown].numpy(), s=size, color=BLUE, alpha=0.6, linewidths=0)
            if len(x):
                ends = [float(x.min()), float(x.max())]
                axes.plot(ends, ends, color=BLACK, linestyle="--", linewidth=1.6, label="predicted = true")
            axes.set(xlabel=f"true {names[place]}", ylabel="predicted", title=_r_squared(x, y))
        axes.legend()
    return fig


def _r_squared(true: Tensor, found: Tensor) -> str:
    spread = float((true - true.mean()).square().sum()) if len(true) else 0.0
    return f"R² {1 - float((true - found).square().sum()) / spread:.3f}" if spread else ""


def plane(x: Tensor, y: Tensor, predict: Callable[[Tensor], Tensor], names: Sequence[str] = ()) -> Figure:
    """Draw points x [N, 2] over a model's regions.

    `y` [N] are their classes. `predict` maps points [M, 2] to probabilities [M, K]. With two classes, the shade is the
    probability, and a line marks 0.5.
    """
    low, high = x.amin(0), x.amax(0)
    room = 0.08 * (high - low)
    sides = [torch.linspace(float(a), float(b), GRID) for a, b in zip(low - room, high + room, strict=True)]
    grid = torch.cartesian_prod(*sides)
    # from [x, y] to [y, x]: the rows of an image go up
    probabilities = predict(grid).reshape(GRID, GRID, -1).movedim(0, 1)
    with style_context():
        fig = figure(6.2, 5.4)
        axes = fig.add_subplot()
        _regions(axes, sides, probabilities)
        for c in range(probabilities.shape[-1]):
            points = x[y == c].numpy()
            axes.scatter(
                points[:, 0],
                points[:, 1],
                s=22,
                color=COLOURS[c % len(COLOURS)],
                marker=MARKERS[c % len(MARKERS)],
                edgecolors="white",
                linewidths=0.5,
                label=names[c] if len(names) > c else f"class {c}",
            )
        axes.grid(False)
        axes.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def _regions(axes: Axes, sides: list[Tensor], probabilities: Tensor) -> None:
    from matplotlib.colors import LinearSegmentedColormap, ListedColormap

    across, up = (side.numpy() for side in sides)
    frame = (across[0], across[-1], up[0], up[-1])
    classes = probabilities.shape[-1]
    if classes == 2:
        second = probabilities[..., 1].numpy()
        shades = LinearSegmentedColormap.from_list("two", [COLOURS[0], "white", COLOURS[1]])
        axes.imshow(second, extent=frame, origin="lower", cmap=shades, vmin=0, vmax=1, alpha=0.45)
        if second.min() < 0.5 < second.max():
            axes.contour(across, up, second, levels=[0.5], colors=BLACK, linewidths=1.6)
        return
    flat = ListedColormap([COLOURS[c % len(COLOURS)] for c in range(classes)])
    regions = probabilities.argmax(-1).numpy()
    axes.imshow(regions, extent=frame, origin="lower", cmap=flat, vmin=-0.5, vmax=classes - 0.5, alpha=0.3)
