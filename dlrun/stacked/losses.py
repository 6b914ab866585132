"""Losses of R runs from the stacked outputs, each run with its own label smoothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from dlrun import metrics as known
from dlrun.engine.forward.whole_split import of_batches
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.mse import mse
from dlrun.stacked.weights import column
from dlrun.types import IGNORE_INDEX, Loss, Metric

FROM_OUTPUTS = (known.accuracy, known.error, known.top_k, known.nll, known.mse)
"""Metrics that need only the model's outputs."""


class StackedLoss(Protocol):
    """A loss of stacked outputs and targets [R, B, …]."""

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        """A value a sample or token, 0 for `IGNORE_INDEX`."""

    def counts(self, y: Tensor) -> Tensor:
        """Each run's number of samples or predicted tokens, [R]."""

    def keep(self, rows: Tensor) -> None:
        """Keep these runs only."""


def stack_losses(losses: Sequence[Loss], like: Tensor) -> StackedLoss | None:
    """The members' losses as one, from the outputs alone.

    None for any other loss: it is called under `vmap`.
    """
    functions, given = {split_partial(loss)[0] for loss in losses}, [split_partial(loss)[1] for loss in losses]
    if any(arguments.get("class_weights") is not None for arguments in given):
        return None  # a weighted mean
    if functions == {cross_entropy}:
        return StackedCrossEntropy([arguments.get("label_smoothing", 0.0) for arguments in given], like)
    return StackedSquaredError() if functions == {mse} else None


def of_outputs(loss: Loss, metrics: Mapping[str, Metric]) -> bool:
    """Whether the loss and the metrics need the model's outputs alone."""
    functions = {split_partial(metric)[0] for metric in of_batches(metrics).values()}
    return split_partial(loss)[0] in (cross_entropy, mse) and functions <= {*FROM_OUTPUTS}


def split_partial(loss: Loss | Metric) -> tuple[Any, dict[str, Any]]:
    """The function of a loss and its filled-in arguments.

    >>> split_partial(partial(cross_entropy, label_smoothing=0.1))[1]
    {'label_smoothing': 0.1}
    """
    if isinstance(loss, partial) and not loss.args:
        return loss.func, dict(loss.keywords)
    return loss, {}


class StackedCrossEntropy:
    """-log softmax(outputs)[y], smoothed by each run's ε.

    It is trained towards 1-ε of the right class plus ε/C of every class.
    """

    def __init__(self, smoothing: Sequence[float], like: Tensor) -> None:
        self._smoothing = column(smoothing, like) if any(smoothing) else None

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        if self._smoothing is None and y.ndim == 2:
            # classes on axis 1: where runs are the last axis they lie so already
            return F.cross_entropy(outputs.transpose(1, 2), y, ignore_index=IGNORE_INDEX, reduction="none")
        if self._smoothing is None:
            found = F.cross_entropy(outputs.flatten(0, -2), y.flatten(), ignore_index=IGNORE_INDEX, reduction="none")
            return found.view(y.shape)
        # torch takes one smoothing for all: here each run mixes in its own share of the mean over classes
        logs = F.log_softmax(outputs, -1)
        right = F.nll_loss(logs.flatten(0, -2), y.flatten(), ignore_index=IGNORE_INDEX, reduction="none").view(y.shape)
        share = self._smoothing.view(-1, *[1] * (y.ndim - 1))
        return torch.lerp(right, -logs.mean(-1).masked_fill(y == IGNORE_INDEX, 0.0), share)

    def counts(self, y: Tensor) -> Tensor:
        return (y != IGNORE_INDEX).flatten(1).sum(1)

    def keep(self, rows: Tensor) -> None:
        self._smoothing = self._smoothing if self._smoothing is None else self._smoothing.index_select(0, rows)


class StackedSquaredError:
    """(outputs - y)², the mean over a sample's components."""

    def values(self, outputs: Tensor, y: Tensor) -> Tensor:
        squares = (outputs - y).square()
        return squares.flatten(2).mean(2) if y.ndim > 2 else squares

    def counts(self, y: Tensor) -> Tensor:
        # real numbers: none is left out
        return torch.full((len(y),), y.shape[1], device=y.device)

    def keep(self, rows: Tensor) -> None:
        pass  # nothing belongs to a run
