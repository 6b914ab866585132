"""The autoregressive model in its first formulation (F. Fleuret, The Little Book of Deep Learning, 3.2).

    f: {∅, 1, …, K}^T → R^K,    f(x_1, …, x_{t-1}, ∅, …, ∅) = the logits of X_t,

with ∅ for a token not known yet. f may look at all places, for the future is hidden. Each t is an input of its own: a
text of T tokens costs T passes, a causal model one. With a causal model as f both give the same values;
`benchmarks/noncausal.py` measures their times. Changed: f is a GPT with the further token ∅.
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
    """Tokens x [B, T] ↦ logits [B, T, V], by T passes.

    The logits at t are those of `inner` for x_0 … x_t, ∅, …, ∅, read at t. `inner` maps `context` tokens 0 … V, with V
    for ∅, to logits [B, context, V + 1]; the logit of ∅ is dropped. As in every model here the logits at t are of the
    token t+1.
    """

    def __init__(self, inner: nn.Module, *, context: int, vocabulary: int) -> None:
        super().__init__()
        self.inner = inner
        self.context = context
        self.vocabulary = vocabulary

    def forward(self, x: Tensor) -> Tensor:
        """The logits [B, T, V], T at most the context."""
        return self.step(x, None)[0]

    def step(self, x: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits [B, t, V] after `memory`, and all tokens.

        Raises `ValueError` if memory and x together exceed the context.
        """
        # the memory is the tokens: each pass is over all of them
        known = x if memory is None else torch.cat([memory, x], dim=1)
        seen = known.shape[1] - x.shape[1]
        check_context(seen, x.shape[1], self.context)
        # a pass a token: this is the cost that a causal model saves
        passes = [self._next_logits(known[:, : t + 1]) for t in range(seen, known.shape[1])]
        return torch.stack(passes, dim=1), known

    def _next_logits(self, known: Tensor) -> Tensor:
        """The next token's logits [B, V] after `known` [B, n]."""
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
    """A transformer in the non-causal formulation.

    Its attention sees all places, unless `causal`. The arguments are those of `dlrun.models.gpt.GPT`.

    >>> noncausal((8,), 65)(torch.zeros(2, 8, dtype=torch.int64)).shape
    torch.Size([2, 8, 65])
    """
    context, kinds = text_shape(input_shape, vocabulary, model="noncausal")
    inner = GPT(
        input_shape,
        kinds + 1,  # and ∅
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
