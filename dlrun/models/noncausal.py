"""The autoregressive model as it is first formulated (F. Fleuret, The Little Book of Deep Learning, 3.2):

    f: {∅, 1, …, K}^T → R^K,    f(x_1, …, x_{t-1}, ∅, …, ∅) = the logits of X_t,

where ∅ stands for what is not known yet. Nothing keeps f from looking anywhere: the future is not there to be
seen. Each t is another input, so a text of T tokens costs T passes where a causal model takes one; with a
causal model within, the values are the same. `benchmarks/noncausal.py` measures both.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dlrun.models.attention import Attention
from dlrun.models.gpt import GPT
from dlrun.models.gpt_sizes import Name
from dlrun.models.text import check_context, text_shape

__all__ = ["noncausal"]


class NonCausal(nn.Module):
    """x [B, T] ↦ logits [B, T, V]: for each t the pass of `inner` over x_0 … x_t, ∅, …, ∅, read off at t.

    `inner` maps `context` tokens 0 … V, of which V is ∅, to logits [B, context, V + 1]; that of ∅ is left
    out, since ∅ never follows. As of every model here, the logits at t are those of the token t+1.
    """

    def __init__(self, inner: nn.Module, *, context: int, vocabulary: int) -> None:
        super().__init__()
        self.inner = inner
        self.context = context
        self.vocabulary = vocabulary

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, T, V] of the tokens that follow, from T passes; T is at most the context."""
        return self.step(x, None)[0]

    def step(self, x: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the logits of the tokens that follow x [B, t], and all the tokens that were seen.

        There is nothing to remember but the tokens: each pass is over all of them. Raises `ValueError` where
        more tokens than the context would be seen.
        """
        known = x if memory is None else torch.cat([memory, x], dim=1)
        seen = known.shape[1] - x.shape[1]
        check_context(seen, x.shape[1], self.context)
        passes = [self._following(known[:, : t + 1]) for t in range(seen, known.shape[1])]
        return torch.stack(passes, dim=1), known

    def _following(self, known: Tensor) -> Tensor:
        """Return the logits [B, V] of the token behind `known` [B, n], from one pass."""
        unknown = known.new_full((len(known), self.context - known.shape[1]), self.vocabulary)
        logits: Tensor = self.inner(torch.cat([known, unknown], dim=1))
        return logits[:, known.shape[1] - 1, : self.vocabulary]


def noncausal(
    input_shape: tuple[int, ...],
    vocabulary: int | None = None,
    *,
    size: Name | int = "nano",
    layers: int | None = None,
    heads: int | None = None,
    width: int | None = None,
    positions: Literal["learned", "rotary"] = "learned",
    dropout: float = 0.0,
    causal: bool = False,
) -> NonCausal:
    """Return a transformer in the non-causal formulation; its attention looks everywhere, unless `causal`.

    >>> noncausal((8,), 65)(torch.zeros(2, 8, dtype=torch.int64)).shape
    torch.Size([2, 8, 65])
    """
    context, kinds = text_shape(input_shape, vocabulary, model="noncausal")
    inner = GPT(
        input_shape,
        kinds + 1,
        size=size,
        layers=layers,
        heads=heads,
        width=width,
        positions=positions,
        dropout=dropout,
    )
    for module in inner.modules():
        if isinstance(module, Attention):
            module.causal = causal
    return NonCausal(inner, context=context, vocabulary=kinds)
