"""Losses and metrics that count the padding of a batch with a mask.

One that returns a mean, or one value a sample, has to look at `batch.mask` itself. Whether it does shows when the
targets that do not count are given other values.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dlrun.engine.evaluation import evaluating, totals
from dlrun.engine.forward.totals import mean_of_totals
from dlrun.engine.forward.whole_split import of_batches
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.randomness import seed_libraries
from dlrun.types import IGNORE_INDEX, Batch, Metric

SAME = 1e-6
"""A relative difference that is rounding."""


def check_mask(objective: Objective, metrics: Mapping[str, Metric], batch: Batch, targets: Mapping[str, str]) -> None:
    """Raise `ConfigError` for a loss or metric whose value depends on targets that the mask leaves out."""
    if (other := _altered(batch)) is None:
        return
    means = [_means(objective, of_batches(metrics), each) for each in (batch, other)]
    for (name, one), (_, two) in zip(*means, strict=True):
        # on a GPU sums have no order; NaN is not padding's doing
        if abs(one - two) > SAME * max(abs(one), abs(two)):
            raise ConfigError(_message(name, targets))


def _means(objective: Objective, metrics: Mapping[str, Metric], batch: Batch) -> list[tuple[str, float]]:
    torch.manual_seed(0)
    seed_libraries(0)
    with evaluating(objective):
        with torch.enable_grad():  # a loss may take another way where gradients are on
            step = float(objective(batch).detach())
        found = totals(objective, metrics, batch)
    return [("loss", step), *((name, mean_of_totals([total])) for name, total in found.items())]


def _altered(batch: Batch) -> Batch | None:
    """The batch with other targets where none counts; None if there are none such."""
    y, mask = batch.y, batch.mask
    if mask is None or not isinstance(y, Tensor) or y.shape[: mask.ndim] != mask.shape or bool(mask.all()):
        return None
    padded = ~mask.view(*mask.shape, *[1] * (y.ndim - mask.ndim)).expand(y.shape)
    if y.is_floating_point():
        return batch._replace(y=torch.where(padded, y + 1, y))
    # a class that exists; one that every loss leaves out stays
    return batch._replace(y=torch.where(padded & (y != IGNORE_INDEX), (y == 0).to(y.dtype), y))


def _message(name: str, targets: Mapping[str, str]) -> str:
    kind = name if name == "loss" else f"metrics.{name}"
    if name != "loss":
        return (
            f"{kind}={targets.get(kind, name)}: padded targets, which the batch's mask leaves out, have a part in it. "
            "Return the sum and the number over `batch.mask` alone."
        )
    return (
        f"loss={targets.get('loss', '')}: padded targets, which the batch's mask leaves out, have a part in its mean. "
        "Return one value for each target, of the mask's shape, and dlrun leaves them out; or take the mean over "
        "`batch.mask` alone."
    )
