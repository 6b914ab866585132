"""One step of gradient descent for R runs at once: the gradient of the sum of their losses, and each run's rule.

A run's loss depends on its own row of weights alone, so that the gradient of the sum is every run's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlrun.optimizers.descent import Descent
from dlrun.stacked.rules import rule_of
from dlrun.stacked.weights import column
from dlrun.types import Batch, Update

if TYPE_CHECKING:
    from dlrun.stacked.objective import StackedObjective


class StackedDescent:
    """`optimizers.descent.Descent` of every run; a loss, a norm and a rate are a number for each, [R]."""

    def __init__(self, members: Sequence[Descent], objective: StackedObjective) -> None:
        weights = objective.weights.detach()
        self.rule = rule_of([member.rule for member in members], weights, objective.decays, objective.layout)
        double = torch.float32 if weights.device.type == "mps" else torch.float64
        self.lr = torch.tensor([member.lr for member in members], dtype=double, device=weights.device)
        self.accumulate = members[0].accumulate
        self.measure_norm = members[0].measure_norm
        clips = [member.clip for member in members]
        self._bound = (
            None if all(c is None for c in clips) else column([inf if c is None else c for c in clips], weights)
        )

    def step(self, objective: StackedObjective, batch: Batch, lr: Tensor) -> Update:
        """Change the weights in place by one step of the rules, at the rates [R]."""
        loss, grads = self._gradient(objective, batch)
        norm = None
        if self._bound is not None or self.measure_norm:
            norm = torch.linalg.vector_norm(grads, dim=1)
            if self._bound is not None:
                grads = grads * torch.clamp(self._bound / (norm[:, None] + 1e-6), max=1.0)
        self.rule.update(objective.weights, grads, lr[:, None].to(grads.dtype))
        return Update(loss, norm)

    def keep(self, rows: Tensor) -> None:
        """Go on with these runs only."""
        self.lr = self.lr.index_select(0, rows)
        self._bound = self._bound if self._bound is None else self._bound.index_select(0, rows)
        self.rule.keep(rows)

    def _gradient(self, objective: StackedObjective, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the losses [R] and their gradients [R, P], of the batch in as many portions as are asked for."""
        if self.accumulate == 1:
            return gradient(objective, batch)
        size = batch.x.shape[1]
        portions = zip(*(torch.tensor_split(t, min(self.accumulate, size), dim=1) for t in batch), strict=True)
        loss, grads = torch.zeros_like(self.lr), torch.zeros_like(objective.weights)
        for portion in portions:
            weight = portion[0].shape[1] / size
            part, grad = gradient(objective, Batch(*portion))
            loss, grads = loss + part * weight, grads + grad * weight
        return loss, grads


def gradient(objective: StackedObjective, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the losses [R], detached, and the gradients [R, P] of each run by its own weights."""
    losses = objective(batch)
    (grads,) = torch.autograd.grad(losses.sum(), [objective.weights])
    return losses.detach(), grads
