"""Sums and counts of a batch, and their quotients."""

from __future__ import annotations

from collections.abc import Iterable
from math import nan

import torch
from torch import Tensor, nn

from dlrun import metrics as known
from dlrun.losses.entries import OfEntries, targets_of
from dlrun.losses.weighing import is_of_weights, weigh
from dlrun.losses.weighted import Values
from dlrun.losses.weighted_sum import WeightedSum
from dlrun.types import IGNORE_INDEX, Batch, Loss

Total = tuple[Tensor, int | Tensor]
"""A sum, and the count of what was summed."""


def loss_total(loss: Loss, model: nn.Module, batch: Batch) -> Total:
    """The loss as a sum and a count.

    The count is of samples, for text of predicted tokens, for weighted values their weight. A scalar loss is a mean: it
    is multiplied by the count. Of a sum of losses they are vectors, one for each term: the mean is the sum of the
    quotients.
    """
    while isinstance(loss, OfEntries):
        loss, model, batch = loss.opened(model, batch)
    if not isinstance(loss, WeightedSum):
        return _total(loss(model, batch), batch, loss)
    terms = [(name, *_total(each, batch, loss.terms[name])) for name, each in loss.found(model, batch).items()]
    sums = torch.stack([loss.weights[name] * value for name, value, _ in terms])
    return sums, torch.stack([torch.as_tensor(count).to(sums) for *_, count in terms])


def mean_of_totals(parts: Iterable[Total]) -> float:
    """The mean of several batches' sums and counts; NaN if nothing counts."""
    sums = Sums()
    for part in parts:
        sums.add("", part)
    return sums.means()[""]


def _total(values: Values, batch: Batch, loss: Loss) -> Total:
    if batch.weight is not None or batch.mask is not None:
        values = weigh(values, batch, loss)
    if isinstance(values, tuple):
        each, weights = map(wide, values)
        return (each * weights).sum(), weights.sum()
    if is_of_weights(loss):
        return wide(values), 1
    y = targets_of(loss, batch.y)
    whole = isinstance(y, Tensor) and not y.is_floating_point()
    if values.ndim == 0:
        count = known.count(y) if whole else batch.size
        return wide(values) * count, count
    if whole and values.shape == y.shape:
        # a loss may have any value at a target that does not count
        return wide(values.masked_fill(y == IGNORE_INDEX, 0.0)).sum(), known.count(y)
    return wide(values).sum(), values.numel()


def wide(values: Tensor) -> Tensor:
    """`values` in float64, those of MPS, which has none, on the host."""
    return (values.cpu() if values.device.type == "mps" else values).double()


class Sums:
    """Running sums and counts on the device."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int | Tensor] = {}

    def add(self, name: str, total: Total) -> None:
        value, count = total
        # a sum is a new tensor: a CUDA graph writes the next chunk's totals over this one's
        self._sums[name] = self._sums.get(name, 0.0) + wide(value)
        self._counts[name] = self._counts.get(name, 0) + count

    def means(self) -> dict[str, float]:
        # the only reads from the device
        return {name: _quotient(value, self._counts[name]) for name, value in self._sums.items()}


def _quotient(value: Tensor, count: int | Tensor) -> float:
    if value.ndim:  # of each term of a sum
        return float((value / count).sum())
    divisor = float(count)
    # of no sample, as of a class that a split lacks, there is no mean
    return float(value) / divisor if divisor else nan
