"""Every token equally likely: the model that knows nothing, whose perplexity is the size of the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlrun.models.text import require_vocabulary

__all__ = ["Uniform"]


class Uniform(nn.Module):
    """x [B, T] ↦ logits [B, T, V], all zero. There is nothing to train: use it with `optimizer=counting`.

    >>> Uniform(3)(torch.tensor([[0, 2]])).softmax(-1)
    tensor([[[0.3333, 0.3333, 0.3333],
             [0.3333, 0.3333, 0.3333]]])
    """

    def __init__(self, vocabulary: int | None) -> None:
        super().__init__()
        self.vocabulary = require_vocabulary(vocabulary, choice="uniform")

    @property
    def context(self) -> None:
        """No bound: it looks at nothing."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, T, V], zeros."""
        return torch.zeros(*x.shape, self.vocabulary, device=x.device)

    def step(self, x: Tensor, memory: tuple[()] | None) -> tuple[Tensor, tuple[()]]:
        """Return the logits [B, t, V], and nothing to remember."""
        return self(x), ()

    def count(self, x: Tensor, y: Tensor) -> None:
        """Learn nothing."""
