"""The objective: a model and a loss as one object, batch → scalar.

It is differentiated, compiled, recorded and stacked; nothing else in a step touches the model.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.types import Batch, Loss


class Objective:
    """The mean loss of a model on a batch.

    `params` are the learned parameters. `decay` is true for those that weight decay acts on: matrices and
    kernels, not biases and the scales of norms. `hidden` is true for matrices and kernels within the network,
    neither an embedding's nor the head's (see `hidden_matrices`).
    """

    def __init__(self, model: nn.Module, loss: Loss, *, autocast: tuple[str, torch.dtype] | None = None) -> None:
        self.model = model
        self.loss = loss
        self.params: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.decay = [p.ndim >= 2 for p in self.params]
        inner = hidden_matrices(model)
        self.hidden = [id(p) in inner for p in self.params]
        self._autocast = autocast

    def __call__(self, batch: Batch) -> Tensor:
        """The mean loss, a scalar with its graph."""
        if self._autocast is None:  # to enter a context that does nothing is a noticeable part of a tiny step
            values = self.loss(self.model, batch)
        else:
            with torch.autocast(*self._autocast):
                values = self.loss(self.model, batch)
        return values.mean() if values.ndim else values

    def precision(self) -> AbstractContextManager[Any]:
        """The autocast context of the model's precision."""
        return torch.autocast(*self._autocast) if self._autocast else nullcontext()


def hidden_matrices(model: nn.Module) -> set[int]:
    """The `id`s of the matrices within the network.

    They are the parameters with two axes or more, without those of embeddings and the head. The head is the last
    module, in the order of definition, with such a parameter of its own. Weights tied to an embedding are the
    embedding's.

    >>> model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 9))
    >>> hidden_matrices(model) == {id(model[1].weight)}
    True
    """
    of_module = {m: {id(p) for p in m.parameters(recurse=False) if p.ndim >= 2} for m in model.modules()}
    embeddings = {i for m, ids in of_module.items() if isinstance(m, nn.Embedding | nn.EmbeddingBag) for i in ids}
    head = next((ids for ids in reversed(of_module.values()) if ids), set())
    return set().union(*of_module.values()) - embeddings - head
