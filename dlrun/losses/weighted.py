"""Means of a loss's values, weighted or not: Σ w·v / Σ w, where w may be that of a sample's class."""

from __future__ import annotations

from torch import Tensor

from dlrun.types import IGNORE_INDEX

Values = Tensor | tuple[Tensor, Tensor]
"""What a loss returns: values or their mean, and of a weighted mean the weights or their sum too (`types.Loss`)."""


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


def mean_and_weight(values: Values) -> tuple[Tensor, Tensor | None]:
    """The mean of what a loss returns, and of a weighted mean the sum of its weights, detached.

    A loss returns one value a sample, or values and their weights, or the mean itself, alone or with its weights.

    >>> import torch
    >>> mean_and_weight((torch.tensor([1.0, 4.0]), torch.tensor([2.0, 1.0])))
    (tensor(2.), tensor(3.))
    """
    if not isinstance(values, tuple):
        return (values.mean() if values.ndim else values), None
    each, weights = values
    total = weights.sum()
    if each.ndim:
        # of a batch without any weight it is 0, and so is its gradient
        each = (each * weights).sum() / total.where(total != 0, 1)
    return each, total.detach()
