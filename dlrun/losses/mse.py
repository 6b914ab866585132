"""The mean squared error."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.losses.auxiliary import with_auxiliary_heads
from dlrun.losses.outputs import outputs_and_targets
from dlrun.types import Batch

__all__ = ["mse"]


@with_auxiliary_heads
def mse(model: nn.Module, batch: Batch) -> Tensor:
    """Squared error, the mean over a target's components: [B].

    While gradients are on it returns their mean. The model's outputs and the targets are float [B, ...]. Raises
    `ConfigError` for class numbers, and for shapes that differ.

    >>> with torch.no_grad():
    ...     mse(nn.Identity(), Batch(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]])))
    tensor([2.])
    """
    outputs, y = outputs_and_targets(model, batch)
    if batch.weighted and batch.mask is not None:
        # one value an element: the objective leaves those of padding out
        each = (outputs - y).square()
        return each.flatten(batch.mask.ndim).mean(-1) if y.ndim > batch.mask.ndim else each
    if torch.is_grad_enabled() and not batch.weighted:
        return F.mse_loss(outputs, y)
    # of scalars [B] there is no component to average
    return F.mse_loss(outputs, y, reduction="none").flatten(1).mean(1) if y.ndim > 1 else (outputs - y).square()
