"""The objective: a model and a loss as one object, batch → scalar.

It is what is differentiated, compiled, captured and, later, stacked; nothing else in a step touches
the model.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.types import Batch, Loss


class Objective:
    """The mean loss of a model on a batch, as a function of the model's parameters.

    `params` are the parameters that are learned, `decay` says for each whether weight decay acts on
    it: on matrices and kernels, not on biases and the scales of norms. `hidden` says for each whether
    it is a matrix or kernel within the network, between what reads the inputs' tokens and what makes
    the outputs (see `hidden_matrices`).
    """

    def __init__(self, model: nn.Module, loss: Loss, *, autocast: tuple[str, torch.dtype] | None = None) -> None:
        self.model = model
        self.loss = loss
        self.params: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.decay = [p.ndim >= 2 for p in self.params]
        inner = hidden_matrices(model)
        self.hidden = [id(p) in inner for p in self.params]
        self._autocast = autocast
        self._call = self._mean

    def __call__(self, batch: Batch) -> Tensor:
        """Return the mean loss over the batch, a scalar with its graph."""
        return self._call(batch)

    def precision(self) -> AbstractContextManager[Any]:
        """Return the context in which the model computes."""
        return torch.autocast(*self._autocast) if self._autocast else nullcontext()

    def _mean(self, batch: Batch) -> Tensor:
        if self._autocast is None:
            values = self.loss(self.model, batch)
        else:
            with torch.autocast(*self._autocast):
                values = self.loss(self.model, batch)
        return values.mean() if values.ndim else values


def hidden_matrices(model: nn.Module) -> set[int]:
    """Return the `id`s of the parameters with two axes or more that belong neither to an embedding nor to the head.

    The head is the last module, in the order of definition, that has such a parameter of its own; where its
    weights are tied to an embedding, they are the embedding's.

    >>> model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 9))
    >>> hidden_matrices(model) == {id(model[1].weight)}
    True
    """
    of_module = {m: {id(p) for p in m.parameters(recurse=False) if p.ndim >= 2} for m in model.modules()}
    embeddings = {i for m, ids in of_module.items() if isinstance(m, nn.Embedding | nn.EmbeddingBag) for i in ids}
    head = next((ids for ids in reversed(of_module.values()) if ids), set())
    return set().union(*of_module.values()) - embeddings - head
