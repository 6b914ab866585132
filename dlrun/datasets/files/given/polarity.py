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


class Polarity:
    """Counts samples [n, *shape] with a light border where the training pictures' are dark, or the reverse."""

    def __init__(self, inputs: RawInputs, *, picture: bool) -> None:
        # an array of vectors need not be of pictures
        self._looked_at = (picture or len(inputs.shape) > 1) and bool(inputs.border and inputs.high)
        self._inputs, self._picture = inputs, picture
        self._low, self._high = min(inputs.low, default=0.0), max(inputs.high, default=0.0)
        self._seen = self._exchanged = 0

    def add(self, raw: Tensor) -> None:
        """Count a chunk of samples."""
        found = borders(raw) if self._looked_at else None
        if found is None or self._high <= self._low:
            return
        values = ((found - self._low) / (self._high - self._low)).tolist()
        self._seen += len(values)
        self._exchanged += sum(_is_exchanged(value, *self._border()) for value in values)

    def report(self, path: Path, *, inverted: bool) -> None:
        """Say if most samples are exchanged."""
        if 2 * self._exchanged <= self._seen:
            return
        own, theirs = ("light", "dark") if self._border()[1] < 0.5 else ("dark", "light")
        of_all = f"the borders of {self._exchanged:,} of {counted(self._seen, 'sample', ',')} are"
        if inverted:
            advice = "Without --invert they are alike."
        elif self._picture:
            advice = "If its black and white are exchanged, as those of ink on paper may be, type --invert."
        else:
            advice = f"If black and white are exchanged, give {self._low + self._high:g} - x."
        output.warn(
            f"{path}: {'its border is' if self._picture else of_all} {own}, those of the training pictures are "
            f"{theirs}. {advice}"
        )

    def _border(self) -> tuple[float, float]:
        """The darkest and the lightest border of the training pictures, from 0 (low) to 1."""
        darkest, lightest = self._inputs.border or (self._low, self._high)
        range_ = self._high - self._low
        return (darkest - self._low) / range_, (lightest - self._low) / range_


def _is_exchanged(border: float, darkest: float, lightest: float) -> bool:
    """Whether a border, from 0 (low) to 1, is one of those from `darkest` to `lightest` once it is inverted."""
    other_side = lightest < 0.5 < border or border < 0.5 < darkest
    outside, inverted = (max(darkest - value, value - lightest, 0.0) for value in (border, 1 - border))
    return other_side and outside > APART and outside > 2 * inverted
