"""The pictures of runs and sweeps: plain data in, a `matplotlib.figure.Figure` out, saved as PNG or SVG.

matplotlib is imported inside the functions, and of it only the figures, not pyplot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlrun.analysis.figures.drawing import draw

__all__ = ["draw"]


def __getattr__(name: str) -> Any:
    # imported when it is asked for: it needs torch, which a report does without
    if name != "draw":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dlrun.analysis.figures.drawing import draw

    return draw
