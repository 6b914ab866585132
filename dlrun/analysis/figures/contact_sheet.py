"""Samples of a data set that are pictures, a row a class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from dlrun.analysis.figures.style import figure, style_context

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 0.9
"""Inches of a picture."""

LONGEST = 18
"""Characters of a name."""


def contact_sheet(rows: Mapping[str, Tensor], title: str) -> Figure:
    """Draw rows of pictures [n, C, H, W], from 0 (black) to 1, with C of 1 or 3, by their names."""
    width = max(len(pictures) for pictures in rows.values())
    with style_context():
        fig = figure(1.6 + SIDE * width, 0.6 + SIDE * len(rows))
        panels = fig.subplots(len(rows), width, squeeze=False)
        for axes, (name, pictures) in zip(panels, rows.items(), strict=True):
            for place, axis in enumerate(axes):
                axis.set_axis_off()
                if place < len(pictures):
                    picture = pictures[place].float().clamp(0, 1).movedim(0, -1).numpy()
                    axis.imshow(picture if picture.shape[2] == 3 else picture[:, :, 0], cmap="gray", vmin=0, vmax=1)
            short = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
            # a name with dollars is no formula
            axes[0].text(
                -0.1, 0.5, short, ha="right", va="center", transform=axes[0].transAxes, size=11, parse_math=False
            )
        fig.suptitle(title, parse_math=False)
    return fig
