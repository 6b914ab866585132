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
    if batch.mask is not None:
        # the objective leaves those of padding out
        return of_elements(outputs, y, batch.mask)
    if torch.is_grad_enabled() and batch.weight is None:
        return F.mse_loss(outputs, y)
    # of scalars [B] there is no component to average
    return F.mse_loss(outputs, y, reduction="none").flatten(1).mean(1) if y.ndim > 1 else (outputs - y).square()


def of_elements(outputs: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """The squared errors of the elements of sequences, [B, T] as the mask: the mean over each one's components."""
    each = (outputs - y).square()
    return each.flatten(mask.ndim).mean(-1) if y.ndim > mask.ndim else each
