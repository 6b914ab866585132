"""Means of a loss's values, weighted or not: Σ w·v / Σ w, where w may be that of a sample's class."""

from __future__ import annotations

from torch import Tensor

from dlrun.types import IGNORE_INDEX


def weights_of(y: Tensor, classes: Tensor | None, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """The weight of each target, of its shape; 1 without weights of classes, 0 for an ignored one."""
    counted = y != ignore_index
    if classes is None:
        return counted.float()
    # an ignored number is no place in the table
    return classes[y.where(counted, 0)] * counted


def unweighted(values: Tensor, weights: Tensor) -> Tensor:
    """The values behind weighted ones; 0 where the weight is."""
    return (values / weights.where(weights != 0, 1)).masked_fill(weights == 0, 0)


def mean_of(values: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """The mean of what a loss returns: of one value a sample, of weighted ones, or the mean itself, weighted or not.

    >>> import torch
    >>> mean_of((torch.tensor([1.0, 4.0]), torch.tensor([2.0, 1.0])))
    tensor(2.)
    """
    if isinstance(values, tuple):
        each, weights = values
        # a mean already, beside the sum of its weights
        return each if each.ndim == 0 else (each * weights).sum() / weights.sum()
    return values.mean() if values.ndim else values


def weight_of(values: Tensor | tuple[Tensor, Tensor]) -> Tensor | None:
    """The sum of a weighted mean's weights; None for any other loss."""
    return values[1].detach().sum() if isinstance(values, tuple) else None
