"""Densities of the plane over the points that they were learned from, and pictures that a density drew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlrun.analysis.figures.functions import GRID
from dlrun.analysis.figures.style import BLACK, COLOURS, figure, style_context

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LogDensity = Callable[[Tensor], Tensor]
"""Points [M, 2] ↦ log p [M]."""

MAX_DOTS = 1000  # more hide the density


def densities(x: Tensor, models: Mapping[str, LogDensity]) -> Figure:
    """Draw densities of the plane by their names, over points x [N, 2].

    All have one scale, whose darkest shade is the highest density of any.
    """
    low, high = x.amin(0), x.amax(0)
    room = 0.15 * (high - low)
    sides = [torch.linspace(float(a), float(b), GRID) for a, b in zip(low - room, high + room, strict=True)]
    grid = torch.cartesian_prod(*sides)
    # from [x, y] to [y, x]: the rows of an image go up
    values = {name: log_prob(grid).double().exp().view(GRID, GRID).T for name, log_prob in models.items()}
    top = max(float(value.max()) for value in values.values())
    dots = x[:: ceil(len(x) / MAX_DOTS)]
    with style_context():
        tall = min(2.0, max(0.5, float((high - low)[1] / (high - low)[0].clamp(min=1e-9))))
        fig = figure(3.9 * len(values) + 1.4, 3.6 * tall + 1.0)
        panels = [fig.add_subplot(1, len(values), i + 1) for i in range(len(values))]
        for axes, (name, value) in zip(panels, values.items(), strict=True):
            picture = axes.imshow(
                value.numpy(), extent=_frame(sides), origin="lower", cmap="Blues", vmin=0, vmax=top, aspect="equal"
            )
            axes.scatter(dots[:, 0].numpy(), dots[:, 1].numpy(), s=3, color=BLACK, alpha=0.35, linewidths=0)
            axes.set(title=name, xlabel="$x_1$")
            axes.grid(False)
        panels[0].set_ylabel("$x_2$")
        fig.colorbar(picture, ax=panels, label="density", shrink=0.9)
    return fig


def scatter(x: Tensor) -> Figure:
    """Draw points x [N, 2]."""
    with style_context():
        fig = figure(5.4, 5.0)
        axes = fig.add_subplot()
        axes.scatter(x[:, 0].numpy(), x[:, 1].numpy(), s=8, color=COLOURS[0], alpha=0.6, linewidths=0)
        axes.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    return fig


def gallery(pictures: Tensor) -> Figure:
    """Draw pictures [n, H, W] or [n, H, W, 3], in 0 … 1, in a square."""
    n, height, width = pictures.shape[:3]
    columns = ceil(n**0.5)
    rows = ceil(n / columns)
    # one picture of all: axes for each would take seconds; a light line lies between them
    whole = torch.full((rows * (height + 1) + 1, columns * (width + 1) + 1, *pictures.shape[3:]), 0.15)
    for place, picture in enumerate(pictures):
        top, left = (height + 1) * (place // columns) + 1, (width + 1) * (place % columns) + 1
        whole[top : top + height, left : left + width] = picture
    with style_context():
        fig = figure(7.0, 7.0 * len(whole) / whole.shape[1])
        axes = fig.add_subplot()
        axes.imshow(whole.numpy(), cmap="gray_r", vmin=0, vmax=1)
        axes.set_axis_off()
    return fig


def _frame(sides: list[Tensor]) -> tuple[float, float, float, float]:
    return (float(sides[0][0]), float(sides[0][-1]), float(sides[1][0]), float(sides[1][-1]))
