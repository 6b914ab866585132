"""Multi-head causal self-attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2).

y_t = Σ_{s≤t} softmax_s(q_t·k_s / √d) v_s, by PyTorch's fused kernel, or for short windows on a CPU by two products.
The keys and values of earlier tokens are the memory of a step (the "KV cache").
"""

from __future__ import annotations

from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.models.positions import Rotation, rotate

KeysValues = tuple[Tensor, Tensor]
"""The keys and the values of the tokens so far, each [B, H, n, d]."""

SHORT = 64
"""Up to this many tokens two products are at least as fast as the fused kernel on two CPU threads.

They took 0.7 to 1.0 of its time (torch 2.13, two cores, heads of 32 and 64 features). At 128 tokens they were even, at
256 the kernel was ahead."""


class Attention(nn.Module):
    """Self-attention: x [B, T, C] ↦ [B, T, C].

    Each of the `heads` heads has C/heads features. With `causal` set to False each token sees all others;
    `dlrun.models.noncausal` needs that.
    """

    def __init__(self, width: int, heads: int, *, dropout: float = 0.0, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.causal = True
        # queries, keys and values by one product
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(
        self, x: Tensor, rotation: Rotation | None = None, memory: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """The outputs after `memory`, and the new memory."""
        q, k, v = self._project(x, rotation)
        if memory is not None:
            k, v = torch.cat([memory[0], k], dim=2), torch.cat([memory[1], v], dim=2)
        mixed = attend(q, k, v, causal=self.causal, dropout=self.dropout if self.training else 0.0)
        y: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return y, (k, v)

    def _project(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [B, H, T, d]."""
        qkv: Tensor = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # [B, T, 3, H, d]
        if rotation is None:
            q, k, v = qkv.unbind(2)
        else:
            q, k = rotate(qkv[:, :, :2], rotation).unbind(2)
            v = qkv[:, :, 2]
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = True, dropout: float = 0.0) -> Tensor:
    """softmax(q kᵀ / √d) v, [B, H, n, d].

    If `causal`, the last query sees all keys, the one before it all but the last, and so on.

    >>> one = torch.ones(1, 1, 3, 1)
    >>> attend(one, one, torch.tensor([0.0, 1.0, 2.0]).view(1, 1, 3, 1)).flatten().tolist()
    [0.0, 0.5, 1.0]
    """
    new, seen = q.shape[2], k.shape[2] - q.shape[2]
    # the sizes are asked last, and as bools: while a graph is exported they stand for any number
    fresh, threads = bool(seen == 0), torch.get_num_threads()
    if fresh and q.device.type == "cpu" and q.dtype == torch.float32 and threads > 1 and 1 < new <= SHORT:
        return _attend_by_products(q, k, v, causal=causal, dropout=dropout)
    # one new token sees all keys; the kernel's own causal mask would line it up with the first
    mask = _causal_mask(seen, new, q.device) if causal and not fresh and new > 1 else None
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal and fresh)


def _attend_by_products(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, dropout: float) -> Tensor:
    q_, k_, v_ = (t.flatten(0, 1) for t in (q, k, v))  # [B·H, n, d]
    hidden = q.new_full((q.shape[2], k.shape[2]), -inf).triu(1) if causal else q.new_zeros(())
    weights = torch.baddbmm(hidden, q_, k_.transpose(1, 2), alpha=q.shape[3] ** -0.5).softmax(2)
    return torch.bmm(F.dropout(weights, dropout), v_).view_as(v)


def _causal_mask(seen: int, new: int, device: torch.device) -> Tensor:
    """Keys visible to `new` tokens, bool [new, seen + new]."""
    return torch.ones(new, seen + new, dtype=torch.bool, device=device).tril(seen)
