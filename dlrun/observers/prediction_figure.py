"""Predictions on the same samples over the steps of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from dlrun.analysis.figures.classes import pixels
from dlrun.analysis.figures.style import figure, style_context
from dlrun.types import IGNORE_INDEX

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 12
"""Steps that are shown at most, evenly spaced."""
WIDE = 12
"""Characters of a prediction that are shown."""
SQUARE = 0.5625
"""The width of a square picture in a row of height 0.9: a row is 0.5 inches, a unit of width 0.8."""


class Cell(NamedTuple):
    """A prediction, its probability, and whether it is right; None where there are no classes."""

    text: str
    confidence: float | None
    right: bool | None


def draw_table(
    rows: Sequence[Sequence[Cell]],
    steps: Sequence[int],
    labels: Sequence[str],
    pictures: Tensor | None = None,
    masks: Tensor | None = None,
) -> Figure:
    """Draw a row of cells for each sample, a column for each step.

    `labels` are the targets; `pictures` [n, C, H, W] stand before them, and `masks` [n, H, W], a class for each pixel.
    Right predictions are blue, wrong ones orange, the deeper the more confident.
    """
    n, shown = (
        len(rows),
        sorted({round(i) for i in torch.linspace(0, len(steps) - 1, min(COLUMNS, len(steps))).tolist()}),
    )
    images = [] if pictures is None else [pixels(pictures, torch.arange(n))]
    images += [] if masks is None else [_coloured(masks)]
    wide = [min(image.shape[2] / image.shape[1], 2.0) * SQUARE for image in images]
    # at least as wide as the words above it
    left = max(0.2 + sum(wide) + 0.1 * len(wide) + 0.16 * max(map(len, labels)), 1.8)
    width = 0.35 + 0.16 * min(WIDE, max(len(cell.text) for row in rows for cell in row))
    width = max(width, 0.9)
    with style_context():
        fig = figure(max(4.0, 0.8 * (left + width * len(shown))), 0.5 * n + 1.0)
        axes = fig.add_subplot()
        for i, row in enumerate(rows):
            x = -left + 0.1
            for image, width_of in zip(images, wide, strict=True):
                place = (x, x + width_of, -i - 0.95, -i - 0.05)
                axes.imshow(image[i].numpy(), cmap="gray_r", vmin=0, vmax=1, extent=place, aspect="auto")
                x += width_of + 0.1
            axes.text(-0.1, -i - 0.5, labels[i], ha="right", va="center", fontsize=11)
            for column, which in enumerate(shown):
                _draw_cell(axes, row[which], width * column, -i, width)
        for column, which in enumerate(shown):
            axes.text(width * (column + 0.5), 0.1, f"{steps[which]:,}", ha="center", va="bottom", fontsize=11)
        axes.text(-0.1, 0.1, "target at step", ha="right", va="bottom", fontsize=11)
        axes.set(xlim=(-left, width * len(shown)), ylim=(-n, 0.7))
        axes.set_axis_off()
    return fig


def _draw_cell(axes: object, cell: Cell, x: float, y: float, width: float) -> None:
    from matplotlib.axes import Axes
    from matplotlib.patches import Rectangle

    assert isinstance(axes, Axes)
    colour = "#eeeeee" if cell.right is None else "#0072B2" if cell.right else "#E69F00"
    shade = 1.0 if cell.confidence is None else 0.15 + 0.75 * cell.confidence
    axes.add_patch(Rectangle((x, y - 0.96), width - 0.04, 0.92, color=colour, alpha=shade, linewidth=0))
    share = "" if cell.confidence is None else f" {cell.confidence:.0%}"
    text = cell.text if len(cell.text) <= WIDE else cell.text[: WIDE - 1] + "…"
    # white on a deep blue alone is legible
    ink = "white" if cell.right and shade > 0.6 else "black"
    axes.text(x + width / 2, y - 0.5, f"{text}{share}", ha="center", va="center", fontsize=9, color=ink)


def _coloured(masks: Tensor) -> Tensor:
    """Classes [n, H, W] as colours [n, H, W, 3]; those that do not count are white."""
    from matplotlib import colormaps

    colours = torch.tensor(colormaps["tab10"].colors)  # type: ignore[attr-defined]
    return torch.where((masks == IGNORE_INDEX)[..., None], torch.ones(3), colours[masks % len(colours)])
