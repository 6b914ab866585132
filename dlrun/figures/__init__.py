"""The pictures of a run: plain data in, a `matplotlib.figure.Figure` out, saved as PNG.

matplotlib is imported inside the functions, and of it only the figures, not pyplot.
"""

from __future__ import annotations

from dlrun.figures.drawing import draw

__all__ = ["draw"]
