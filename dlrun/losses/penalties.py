"""Penalties of large weights, as terms of a sum of losses (`loss=sum`)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError
from dlrun.types import Batch, Loss

__all__ = ["l1", "l2"]


def _of_weights(penalty: Loss) -> Loss:
    """Say of a loss that it is one of the weights alone: weights of samples have no part in it."""
    setattr(penalty, "of_weights", True)  # noqa: B010  # a function's type has no attributes
    return penalty


@_of_weights
def l1(model: nn.Module, batch: Batch) -> Tensor:
    """Σ |w| over the model's matrices and kernels, a scalar: not over biases and the scales of norms.

    >>> layer, batch = nn.Linear(2, 1), Batch(torch.ones(1, 2), torch.ones(1, 1))
    >>> _ = nn.init.constant_(layer.weight, -3.0)
    >>> l1(layer, batch).item(), l2(layer, batch).item()
    (6.0, 18.0)
    """
    return _total(model, lambda weight: weight.abs())


@_of_weights
def l2(model: nn.Module, batch: Batch) -> Tensor:
    """Σ w² over the model's matrices and kernels, a scalar; with the weight λ/2 its gradient is weight decay's, λ·w."""
    return _total(model, lambda weight: weight.square())


def _total(model: nn.Module, each: Callable[[Tensor], Tensor]) -> Tensor:
    found = [each(parameter).sum() for parameter in model.parameters() if parameter.ndim > 1]
    if not found:
        raise ConfigError(f"The model `{type(model).__name__}` has no matrices and kernels to penalise.")
    return torch.stack(found).sum()
