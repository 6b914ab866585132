"""The network that acts on each token alone, between two attentions of a transformer.

`gelu`: W₂·gelu(W₁·x) with 4·C hidden units (Vaswani et al. 2017; Radford et al. 2019). `swiglu`:
W₂·(silu(W₁·x) ∘ W₃·x) (Shazeer 2020, arXiv:2002.05202) with 8/3·C hidden units, rounded to a multiple of
8, so that both have 8·C² weights.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["gelu", "swiglu"]


class FeedForward(nn.Module):
    """x [..., C] ↦ [..., C].

    >>> [FeedForward(96, kind).out.in_features for kind in ("gelu", "swiglu")]
    [384, 256]
    """

    def __init__(self, width: int, activation: Activation = "gelu", *, bias: bool = False) -> None:
        super().__init__()
        self.gated = activation == "swiglu"
        hidden = max(8, 8 * round(width / 3)) if self.gated else 4 * width
        self.hidden = nn.Linear(width, hidden * (1 + self.gated), bias=bias)
        self.out = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the network makes of each token."""
        hidden = self.hidden(x)
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            hidden = F.silu(gate) * value
        else:
            hidden = F.gelu(hidden)
        y: Tensor = self.out(hidden)
        return y
