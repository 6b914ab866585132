"""Are the black and the white of pictures exchanged, compared with those of the training split?"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from dlrun.datasets.tensors.raw_inputs import borders
from dlrun.terminal import output
from dlrun.terminal.format import counted
from dlrun.types import RawInputs

APART = 0.25
"""Parts of the range from black to white by which a border has to lie outside of the training pictures'."""


def report_polarity(path: Path, raw: Tensor, inputs: RawInputs, *, picture: bool, inverted: bool) -> None:
    """Say if most samples [N, *shape] have a light border where the training pictures' are dark, or the reverse."""
    # an array of vectors need not be of pictures
    found = borders(raw) if picture or len(inputs.shape) > 1 else None
    if found is None or not inputs.border or not inputs.high:
        return
    low, high = min(inputs.low), max(inputs.high)
    darkest, lightest = ((value - low) / (high - low) for value in inputs.border) if high > low else (0.0, 1.0)
    values = ((found - low) / (high - low)).tolist() if high > low else []
    exchanged = sum(_is_exchanged(value, darkest, lightest) for value in values)
    if 2 * exchanged <= len(values) or not values:
        return
    own, theirs = ("light", "dark") if lightest < 0.5 else ("dark", "light")
    which = "its border is" if picture else f"the borders of {exchanged:,} of {counted(len(values), 'sample', ',')} are"
    if inverted:
        advice = "Without --invert they are alike."
    elif picture:
        advice = "If its black and white are exchanged, as those of ink on paper may be, type --invert."
    else:
        advice = f"If black and white are exchanged, give {low + high:g} - x."
    output.warn(f"{path}: {which} {own}, those of the training pictures are {theirs}. {advice}")


def _is_exchanged(border: float, darkest: float, lightest: float) -> bool:
    """Whether a border, from 0 (low) to 1, is one of those from `darkest` to `lightest` once it is inverted."""
    other_side = lightest < 0.5 < border or border < 0.5 < darkest
    outside, inverted = (max(darkest - value, value - lightest, 0.0) for value in (border, 1 - border))
    return other_side and outside > APART and outside > 2 * inverted
