"""LayerNorm and RMSNorm of a token's features.

LayerNorm (Ba et al. 2016, arXiv:1607.06450) subtracts the mean and divides by the standard deviation; RMSNorm (Zhang &
Sennrich 2019, arXiv:1910.07467) only divides by the root mean square. Both scale each feature by a learned weight.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

Norm = Literal["layer", "rms"]


def make_norm(kind: Norm, width: int, *, bias: bool) -> nn.Module:
    """The norm over the last axis, of `width` features.

    RMSNorm has no bias.

    >>> make_norm("layer", 8, bias=False)
    LayerNorm((8,), eps=1e-05, elementwise_affine=True, bias=False)
    """
    # the same eps for both; PyTorch's RMSNorm would take that of the type, 1e-7
    return nn.LayerNorm(width, bias=bias) if kind == "layer" else nn.RMSNorm(width, eps=1e-5)
