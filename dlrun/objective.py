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
    it: on matrices and kernels, not on biases and the scales of norms.
    """

    def __init__(self, model: nn.Module, loss: Loss, *, autocast: tuple[str, torch.dtype] | None = None) -> None:
        self.model = model
        self.loss = loss
        self.params: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.decay = [p.ndim >= 2 for p in self.params]
        self._autocast = autocast
        self._call = self._mean

    def __call__(self, batch: Batch) -> Tensor:
        """Return the mean loss over the batch, a scalar with its graph."""
        return self._call(batch)

    def compile(self, **options: Any) -> None:
        """Have `torch.compile` make one program of model and loss."""
        self._call = torch.compile(self._mean, **options)

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
