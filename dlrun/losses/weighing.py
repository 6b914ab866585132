"""The values of a loss, with the weights of samples and without elements that do not count."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlrun.errors import ConfigError
from dlrun.losses.entries import targets_of
from dlrun.losses.weighted import Values, mean_and_weight
from dlrun.types import IGNORE_INDEX, Batch, Loss


def weigh(values: Values, batch: Batch, loss: Loss) -> Values:
    """What `loss` has returned, with the weights of the samples, and without elements that do not count.

    Values [B, T, ...] of elements are masked, values [B] of samples are not: the loss has looked at the mask itself.
    Targets `IGNORE_INDEX` have no part in values of their shape. Raises `ConfigError` for a loss that returns its mean,
    which cannot be weighted.
    """
    each, weights = values if isinstance(values, tuple) else (values, None)
    if batch.weight is None and batch.mask is None and (each.ndim < 2 or weights is not None):
        return values
    if each.ndim == 0:
        if batch.weight is None or getattr(loss, "weighs", False) or is_of_weights(loss):
            return values
        raise ConfigError(
            "The samples have weights, and the loss returns a mean, in which they have no part. Return one value a "
            "sample, or weight them by `batch.weight`, and return the values and the weights. A penalty of the model "
            "alone has an attribute `of_weights = True`."
        )
    found, counted = weights, None
    if weights is None:
        counted = _counted(each, targets_of(loss, batch.y))
        if counted is not None:
            # a loss may have any value at a target that does not count
            each, found = each.where(counted, 0.0), counted.to(each)
    if batch.weight is not None:
        found = torch.ones_like(each) if found is None else found
        found = found * batch.weight.to(found).view(-1, *[1] * (each.ndim - 1))
    if batch.mask is not None and each.shape[: batch.mask.ndim] == batch.mask.shape:
        mask = batch.mask.view(*batch.mask.shape, *[1] * (each.ndim - batch.mask.ndim))
        # where: a value of padding may be no number
        each, found = each.where(mask, 0.0), (torch.ones_like(each) if found is None else found) * mask
    return each if found is None else (each, found)


def batch_mean(values: Values, batch: Batch, loss: Loss) -> tuple[Tensor, Tensor | None]:
    """The mean of a batch, and its weight in a mean over batches; None if that is its number of samples.

    Of a mean over classes for each element the weight is the number that count, as in an evaluation.

    >>> y = torch.tensor([[3, 1], [2, IGNORE_INDEX]])
    >>> batch_mean(torch.tensor(0.5), Batch(torch.zeros(2, 2), y), lambda model, batch: batch.y)
    (tensor(0.5000), tensor(3.))
    """
    values = weigh(values, batch, loss)
    if isinstance(values, Tensor) and values.ndim == 0:
        return values, elements(targets_of(loss, batch.y))
    return mean_and_weight(values)


def elements(y: Any) -> Tensor | None:
    """How many classes for each element, [B, T] or [B, H, W], count; None of other targets."""
    if not isinstance(y, Tensor) or y.ndim < 2 or y.is_floating_point():
        return None
    # as a real number, which a compiled step can be compared by
    return (y != IGNORE_INDEX).sum().float()


def is_of_weights(part: object) -> bool:
    """Is a loss one of the model's weights alone, by its attribute `of_weights`: a penalty?"""
    return bool(getattr(getattr(part, "func", part), "of_weights", False))


def _counted(each: Tensor, y: Any) -> Tensor | None:
    """Of classes for each element those that count; None if all do."""
    whole = isinstance(y, Tensor) and not y.is_floating_point() and y.shape == each.shape and y.ndim > 1
    return y != IGNORE_INDEX if whole else None
