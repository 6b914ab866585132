"""The loss of a guess: what a model would have that knows nothing of the inputs."""

from __future__ import annotations

from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlrun.engine.batches import LoaderSplit
from dlrun.engine.forward.totals import loss_total, mean_of_totals
from dlrun.engine.objective import Objective
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.mse import mse
from dlrun.losses.of_outputs.torch_loss import TorchLoss
from dlrun.types import Batch, Data, Loss

LARGEST = 1 << 24
"""Logits of a guess of each class: of more classes it would take noticeable time and memory."""


class Guess(NamedTuple):
    """The loss of a guess, and the guess in words."""

    loss: float
    words: str


def loss_of_guess(data: Data, objective: Objective, device: torch.device) -> Guess | None:
    """The loss of a guess over the training split.

    Of classes by their frequencies there, of a regression their mean, of a text any token alike. None for losses and
    data sets of which no guess is known.

    >>> from dlrun.datasets.digits import digits
    >>> guess = loss_of_guess(digits(), Objective(nn.Flatten(), cross_entropy), torch.device("cpu"))
    >>> round(guess.loss, 2)  # ten digits, equally often
    2.3
    """
    spec, loss = data.spec, objective.loss
    if spec.task == "language" and spec.vocabulary:
        return Guess(log(spec.vocabulary), f"log({spec.vocabulary})")
    if isinstance(data.train, LoaderSplit) or spec.task not in ("classification", "regression"):
        return None
    function = getattr(loss, "func", loss)
    values = function is mse or (
        isinstance(loss, TorchLoss) and loss.form.targets == "values" and not loss.form.outputs
    )
    classes = function is cross_entropy or (isinstance(loss, TorchLoss) and loss.name in ("cross_entropy", "nll_loss"))
    batch = data.train.gather(torch.arange(len(data.train), device=device))
    y = batch.y
    if not isinstance(y, Tensor) or batch.weight is not None or batch.mask is not None:
        return None
    if values and y.is_floating_point():
        guess = y.mean(0).expand(y.shape)
        return Guess(_mean(objective, Batch(guess, y)), "the mean of the targets")
    if classes and not y.is_floating_point() and spec.classes and spec.classes**2 <= LARGEST and y.ndim == 1:
        return Guess(_of_classes(loss, y, spec.classes), "the frequencies of the classes")
    return None


def _of_classes(loss: Loss, y: Tensor, classes: int) -> float:
    """Σ n·w·v / Σ n·w over the classes: a sample of each is enough."""
    # on a GPU its sums have no order, and MPS has no float64
    counts = y.cpu().bincount(minlength=classes).double()
    present = counts.nonzero()[:, 0]
    logits = (counts / counts.sum()).log().clamp(min=-100.0).float().expand(len(present), classes)
    with torch.no_grad():
        found = loss(nn.Identity(), Batch(logits.to(y.device), present.to(y.device)))
    values, weights = (t.cpu() for t in (found if isinstance(found, tuple) else (found, torch.ones_like(found))))
    shares = counts[present] * weights.double()
    return float((shares * values.double()).sum() / shares.sum())


def _mean(objective: Objective, batch: Batch) -> float:
    with torch.no_grad():
        return mean_of_totals([loss_total(objective.loss, nn.Identity(), batch)])
