"""Blocks that follow one another, as one module."""

from __future__ import annotations

from typing import Any

from torch import nn


class Blocks(nn.ModuleList):
    """A chain of blocks: x ↦ the last one's output.

    Each block gets the output of the one before it. Further arguments go to every block.

    >>> import torch
    >>> Blocks([nn.ReLU(), nn.Hardtanh()])(torch.tensor([-3.0, 0.5, 3.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """

    def forward(self, x: Any, *rest: Any) -> Any:
        """The last block's output."""
        for block in self:
            x = block(x, *rest)
        return x
