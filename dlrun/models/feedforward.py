"""The feed-forward network of a transformer's block, for each token alone.

`gelu`: W₂·gelu(W₁·x) with 4·C hidden units (Vaswani et al. 2017, arXiv:1706.03762; Radford et al. 2019). `swiglu`:
W₂·(silu(W₁·x) ∘ W₃·x) with 8/3·C hidden units, rounded to a multiple of 8 (Shazeer 2020, arXiv:2002.05202). Both have
about 8·C² weights.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["gelu", "swiglu"]


class FeedForward(nn.Module):
    """Feed-forward network: x [..., C] ↦ [..., C].

    >>> [FeedForward(96, kind).out.in_features for kind in ("gelu", "swiglu")]
    [384, 256]
    """

    def __init__(self, width: int, activation: Activation = "gelu", *, bias: bool = False) -> None:
        super().__init__()
        self.gated = activation == "swiglu"
        # two thirds of 4·C units, as in the paper: there are three matrices instead of two
        hidden = max(8, 8 * round(width / 3)) if self.gated else 4 * width
        # the gate and the value of swiglu by one product
        self.hidden = nn.Linear(width, hidden * (1 + self.gated), bias=bias)
        self.out = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs [..., C]."""
        hidden = self.hidden(x)
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            hidden = F.silu(gate) * value
        else:
            hidden = F.gelu(hidden)
        y: Tensor = self.out(hidden)
        return y
