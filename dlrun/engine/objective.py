"""The objective: a model and a loss as one object, batch → scalar.

It is differentiated, compiled, recorded and stacked; nothing else in a step touches the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.datasets.tensors.spec import TargetScale
from dlrun.engine.forward.views import Views
from dlrun.engine.own.modules import module_of
from dlrun.engine.parameters.kinds import hidden_matrices, matrices
from dlrun.engine.parameters.names import parameter_names
from dlrun.losses.weighing import batch_mean, elements
from dlrun.types import Batch, Loss


class Objective:
    """The mean loss of a model on a batch.

    `params` are the learned parameters: the model's, then those of a loss that is a module or holds some. `decay` is
    true for those that weight decay acts on: matrices and kernels, not biases and the scales of norms (see
    `parameters.kinds`). `hidden` is true for matrices and kernels within the network, neither an embedding's nor the
    head's. An evaluation averages the outputs over `views`. `still` are modules that stay in evaluation mode in
    training, frozen norms; `waiting` are the places in `params` of those that do not train yet. `target_scale` is that
    of the data set, if its targets are scaled.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        *,
        autocast: tuple[str, torch.dtype] | None = None,
        views: Views | None = None,
    ) -> None:
        self.model = model
        self.loss = loss
        self.views = views
        own = module_of(loss)
        self.modules: list[nn.Module] = [model] if own is None else [model, own]
        # a loss may hold a module of the model's: each parameter once
        params = dict.fromkeys(p for module in self.modules for p in module.parameters())
        self.params: list[Tensor] = [p for p in params if p.requires_grad]
        decayed, inner = set[int]().union(*map(matrices, self.modules)), hidden_matrices(model)
        self.decay = [id(p) in decayed for p in self.params]
        self.hidden = [id(p) in inner for p in self.params]
        self._autocast = autocast
        self.target_scale: TargetScale | None = None
        self.still: Sequence[nn.Module] = ()
        self.waiting: frozenset[int] = frozenset()

    def __call__(self, batch: Batch) -> Tensor:
        """The mean loss, a scalar with its graph."""
        return self.weighed(batch)[0]

    def weighed(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The mean loss, and the weight of the batch in a mean over batches, if it is not its number of samples."""
        if self._autocast is None:  # to enter a context that does nothing is a noticeable part of a tiny step
            values = self.loss(self.model, batch)
        else:
            with torch.autocast(*self._autocast):
                values = self.loss(self.model, batch)
        if batch.plain and isinstance(values, Tensor) and not values.ndim:
            return values, elements(batch.y) if batch.y.ndim > 1 else None
        return batch_mean(values, batch, self.loss)

    @property
    def names(self) -> list[str]:
        """The name of each parameter; those of the loss begin with `loss.`."""
        return parameter_names(dict(zip(("", "loss."), self.modules, strict=False)), self.params)

    @property
    def exact(self) -> bool:
        """Whether the model computes in the type of its weights."""
        return self._autocast is None

    def train(self, mode: bool = True) -> None:
        """Set model and loss to training or evaluation."""
        for module in self.modules:
            module.train(mode)
        for module in self.still:
            module.eval()

    def buffers(self) -> Iterator[Tensor]:
        """The buffers of model and loss."""
        return chain.from_iterable(module.buffers() for module in self.modules)

    def precision(self) -> AbstractContextManager[Any]:
        """The autocast context of the model's precision."""
        return torch.autocast(*self._autocast) if self._autocast else nullcontext()
