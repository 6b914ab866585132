"""Are the values of given samples in the range of the training samples?"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dlrun.terminal import output
from dlrun.terminal.format import ends
from dlrun.types import RawInputs


class Ranges:
    """What has been seen of raw samples [n, *shape], chunk by chunk: their least and largest values, and those outside.

    One of each component of a vector and each channel of a picture where the training samples have so.
    """

    def __init__(self, inputs: RawInputs) -> None:
        self._inputs = inputs
        self._bounds = [torch.tensor(side, dtype=torch.float64) for side in (inputs.low, inputs.high)]
        self._least = self._most = torch.empty(0)
        self._outside = torch.zeros(len(inputs.high), dtype=torch.int64)
        self._values = self._samples = self._samples_outside = 0
        self._fractions = False

    def add(self, raw: Tensor) -> None:
        """Take a chunk of samples into account."""
        self._values += raw.numel()
        self._samples += len(raw)
        if not self._inputs.high or not len(raw):
            return
        # [n, sides, values]
        x = raw.double().reshape(len(raw), len(self._inputs.high) if len(self._inputs.high) > 1 else 1, -1)
        low, high = (side.view(1, -1, 1) for side in self._bounds)
        slack = 1e-6 * (high - low)
        outside = (x < low - slack) | (x > high + slack)
        self._outside += outside.sum((0, 2))
        self._samples_outside += int(outside.flatten(1).any(1).sum())
        least, most = x.amin((0, 2)), x.amax((0, 2))
        self._least = torch.minimum(self._least, least) if len(self._least) else least
        self._most = torch.maximum(self._most, most) if len(self._most) else most
        self._fractions |= raw.is_floating_point() and bool((raw != raw.round()).any())

    def report(self, path: Path) -> None:
        """Say which values lie outside."""
        if not len(self._least):
            return
        low, high = (float(side) for side in (self._bounds[0].min(), self._bounds[1].max()))
        least, most = float(self._least.min()), float(self._most.max())
        if self._samples_outside:
            output.warn(
                f"{path}: {int(self._outside.sum()):,} of {self._values:,} values, in {self._samples_outside:,} of "
                f"{self._samples:,} samples, lie outside of the training samples' range{self._where()}."
            )
        elif low == 0 and high >= 16 and most <= 1 and self._fractions:
            output.warn(
                f"{path}: its values run from {least:g} to {most:g}, those of the training samples from 0 to {high:g}. "
                "If they were scaled, scale them back: inputs are raw."
            )

    def _where(self) -> str:
        inputs = self._inputs
        if len(inputs.high) == 1 or len(inputs.shape) > 1:
            given = ends(float(self._least.min()), float(self._most.max()))
            return f", {ends(min(inputs.low), max(inputs.high))}: they run from {given}"
        found = [
            f"column {inputs.columns[i] if inputs.columns else i + 1} runs from "
            f"{ends(float(self._least[i]), float(self._most[i]))}, there {ends(inputs.low[i], inputs.high[i])}"
            for i in self._outside.nonzero().flatten().tolist()
        ]
        return ": " + "; ".join(found[:3]) + (" …" if len(found) > 3 else "")
