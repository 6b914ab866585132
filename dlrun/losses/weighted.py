"""A mean with a weight for each class: Σ w·v / Σ w over the samples, w that of a sample's class."""

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
