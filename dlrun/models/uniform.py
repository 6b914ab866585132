"""Every token equally likely: a baseline with the vocabulary's size as its perplexity."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlrun.models.text import require_vocabulary

__all__ = ["Uniform"]


class Uniform(nn.Module):
    """Tokens x [B, T] ↦ logits [B, T, V], all zero.

    It has nothing to train: use `optimizer=counting`. Raises `ConfigError` for data without tokens.

    >>> Uniform(3)(torch.tensor([[0, 2]])).softmax(-1)
    tensor([[[0.3333, 0.3333, 0.3333],
             [0.3333, 0.3333, 0.3333]]])
    """

    def __init__(self, vocabulary: int | None) -> None:
        super().__init__()
        self.vocabulary = require_vocabulary(vocabulary, choice="uniform")

    @property
    def context(self) -> None:
        """None: no bound."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """The logits [B, T, V], zeros."""
        return torch.zeros(*x.shape, self.vocabulary, device=x.device)

    def step(self, x: Tensor, memory: tuple[()] | None) -> tuple[Tensor, tuple[()]]:
        """The logits [B, t, V], and an empty memory."""
        return self(x), ()

    def count(self, x: Tensor, y: Tensor) -> None:
        """Do nothing, for `optimizer=counting`."""
