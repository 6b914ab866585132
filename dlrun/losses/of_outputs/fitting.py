"""Outputs and targets for a loss of PyTorch: types and shapes that fit it, without broadcasting."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlrun.errors import ConfigError
from dlrun.losses.class_axis import on_axis_1
from dlrun.losses.of_outputs.forms import Form
from dlrun.losses.outputs import describe, kind_of
from dlrun.types import IGNORE_INDEX

LABELS = ("bce", "binary", "multilabel")
NEAR = 1e-2
"""The largest distance of a sum of probabilities from 1, for half precision too."""

MULTILABEL = " For labels of 0 and 1 give targets of floats, [N, classes]."


def fit(outputs: Any, y: Tensor, loss: str, *, pair: bool = False) -> tuple[Any, Tensor]:
    """Outputs and real-valued targets of one shape; of a `pair` both outputs.

    Raises `ConfigError` for class numbers, and for shapes that differ: torch would broadcast them.
    """
    _check_targets(y, loss)
    if pair:
        return _fit_pair(outputs, y, loss), y
    outputs = _tensor(outputs, loss)
    if not y.is_floating_point():
        raise ConfigError(
            f"{loss} takes targets of real numbers in the outputs' shape, and the targets are {kind_of(y)}. For class "
            f"numbers type loss=cross_entropy.{MULTILABEL if loss.lower().startswith(LABELS) else ''}"
        )
    if outputs.shape != y.shape:
        raise ConfigError(
            f"{loss}: the model returns {kind_of(outputs)} for targets of shape {list(y.shape)}; expected the same: "
            "broadcasting would give a wrong mean. Leave model.outputs to the data set, or give the targets the shape "
            "[samples, components]."
        )
    return outputs, y


def fit_classes(
    outputs: Any, y: Tensor, loss: str, *, shares: bool = False, axis: int | None = None
) -> tuple[Tensor, Tensor]:
    """Logits [B, C, ...] and class numbers int64 [B, ...].

    With `shares` the targets may be those of the classes, of the logits' shape. Logits [B, ..., C] are turned if only
    they fit, or if `axis` is -1. Raises `ConfigError` for others.
    """
    outputs = _tensor(outputs, loss)
    _check_targets(y, loss)
    if loss.lower().startswith("multilabel") and outputs.shape == y.shape and not y.is_floating_point():
        return outputs, y.long()
    if y.is_floating_point():
        if not shares or outputs.shape != y.shape or outputs.ndim < 2 or outputs.shape[1] < 2:
            raise ConfigError(
                f"{loss} takes class numbers, and the targets are {kind_of(y)} for outputs {kind_of(outputs)}. For "
                "real-valued targets type loss=mse."
            )
        return outputs, y
    first = on_axis_1(outputs.shape, y.shape, axis or 1)
    if first is False:
        return outputs.movedim(-1, 1), y.long()
    if first and outputs.shape[1] > 1:
        return outputs, y.long()
    raise ConfigError(
        f"{loss}: the model returns {kind_of(outputs)} for class numbers of shape {list(y.shape)}; expected logits of "
        f"shape {[*y.shape[:1], 'classes', *y.shape[1:]]}, with at least 2 classes. "
        "Leave model.outputs to the data set."
    )


def check_values(form: Form, outputs: Any, y: Tensor, loss: str) -> None:
    """Raise `ConfigError` for values with which the loss is a number and means nothing; reads them from the device."""
    if form.targets == "signs" and not bool((y.abs() == 1).all()):
        raise ConfigError(f"{loss} takes targets of -1 and 1; these run from {y.min():.6g} to {y.max():.6g}.")
    if form.targets == "zeros and ones" and not bool(((y >= 0) & (y <= 1)).all()):
        raise ConfigError(f"{loss} takes targets from 0 to 1; these run from {y.min():.6g} to {y.max():.6g}.")
    if form.targets in ("classes", "shares") and y.is_floating_point():
        sums = y.flatten(1).sum(1) if form.targets == "shares" else y.sum(1)
        if not bool((y >= 0).all()) or not torch.allclose(sums, torch.ones_like(sums), atol=NEAR):
            raise ConfigError(
                f"{loss} takes targets that are shares of the classes, from 0 on and with the sum 1; a sample's sum is "
                f"{sums.flatten()[0]:.6g}. For labels of 0 and 1, several a sample, type "
                "loss._target_=torch.nn.BCEWithLogitsLoss; for real values loss=mse."
            )
    if form.targets == "classes" and not form.weighted and bool((y == IGNORE_INDEX).any()):
        raise ConfigError(
            f"{loss} has no value for targets that do not count, and some are {IGNORE_INDEX} (padding). Type "
            "loss=cross_entropy, or give a loss of your own, of one value for each target."
        )
    if form.outputs == "log-probabilities" and form.targets == "classes":
        logs = outputs.float().logsumexp(1)
        if not torch.allclose(logs, torch.zeros_like(logs), atol=NEAR):
            raise ConfigError(
                f"{loss} takes log-probabilities, and a sample's add up to {logs.flatten()[0].exp():.6g}: they are "
                "logits. Type loss._target_=torch.nn.CrossEntropyLoss, or end the model with a LogSoftmax."
            )


def _fit_pair(outputs: Any, y: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    both = tuple(outputs) if isinstance(outputs, tuple | list) else ()
    if len(both) != 2 or not all(isinstance(each, Tensor) for each in both):
        raise ConfigError(
            f"{loss} takes a mean and a variance; the model returns {describe(outputs)}. Give it a `forward` "
            "that returns the pair (mean, variance), both of the targets' shape, the variance above 0 (by `softplus`)."
        )
    mean, variance = both
    if mean.shape != y.shape or variance.shape not in (y.shape, y.shape[:-1], (*y.shape[:-1], 1)):
        raise ConfigError(
            f"{loss}: the model returns a mean {kind_of(mean)} and a variance {kind_of(variance)} for targets of shape "
            f"{list(y.shape)}; expected the same shape."
        )
    return mean, variance


def _tensor(outputs: Any, loss: str) -> Tensor:
    if not isinstance(outputs, Tensor):
        raise ConfigError(
            f"{loss} takes a tensor; the model returns {describe(outputs)}. Write a loss of your own, a "
            "function of (model, batch)."
        )
    return outputs


def _check_targets(y: Any, loss: str) -> None:
    if not isinstance(y, Tensor):
        raise ConfigError(
            f"{loss} takes a tensor of targets; those of the data set are {describe(y)}. Write a loss of your "
            "own, a function of (model, batch), which takes the entries that it needs."
        )
