"""The look of all figures: legible at half their size, distinct without colour."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.storage.files.replacing import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# the palette of Okabe and Ito, distinct for colour-blind readers
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
    "#000000",
)
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, BLACK)
MARKERS = "os^Dv*Ph"
LINES = ("-", "--", "-.", ":")

_SETTINGS: Any = {
    "font.size": 13,
    "axes.titlesize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "savefig.dpi": 130,
    # without a fixed salt, the same figure gives another file each time
    "svg.hashsalt": "dlrun",
}


@contextmanager
def style_context() -> Iterator[None]:
    """Draw in this style; matplotlib's settings are restored afterwards."""
    import matplotlib as mpl

    with mpl.rc_context(_SETTINGS):
        yield


def figure(width: float, height: float) -> Figure:
    """An empty figure, its size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(fig: Figure, *paths: Path) -> Path:
    """Write a figure into PNG and SVG files.

    The ending decides the format. Returns the first file. A reader sees a whole file or none.
    """
    # lay out once for all files: each layout costs as much as a drawing
    engine = fig.get_layout_engine()
    if engine is not None:
        with style_context():
            engine.execute(fig)
            fig.set_layout_engine(None)
    for path in paths:
        content = io.BytesIO()
        kind = path.suffix.removeprefix(".")
        with style_context():
            fig.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else None)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content.getvalue())
    return paths[0]
