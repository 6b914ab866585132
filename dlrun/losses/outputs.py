"""A model's outputs beside the targets, once their types and shapes are known to fit together.

Only types and shapes are looked at, never values, so that nothing waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError
from dlrun.types import Batch


def logits_and_classes(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the logits [..., C] of the model and the class numbers [...] of the batch.

    Raises ConfigError for targets that are not class numbers, and for outputs that are not one score
    a class.
    """
    y = batch.y
    if y.dtype != torch.int64:
        if y.is_floating_point():
            raise ConfigError(
                f"loss=cross_entropy was given targets of {_kind(y)}; it needs class numbers, int64. "
                "For real-valued targets type loss=mse"
            )
        y = y.long()
    logits: Tensor = model(batch.x)
    if logits.shape[:-1] != y.shape or logits.shape[-1] < 2:
        raise ConfigError(
            f"The model `{type(model).__name__}` returns {_kind(logits)} for class numbers of shape {list(y.shape)}; "
            f"expected are scores of shape {[*y.shape, 'classes']}, with at least 2 classes. "
            "Leave model.outputs to the data set, or type loss=mse for a regression."
        )
    return logits, y


def outputs_and_targets(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the model's outputs and the targets of a regression, both [B, ...].

    Raises ConfigError for class numbers, and for shapes that are not the same: they would broadcast.
    """
    y = batch.y
    if not y.is_floating_point():
        raise ConfigError(
            f"loss=mse was given targets of {_kind(y)}; it needs real-valued ones. "
            "For class numbers type loss=cross_entropy"
        )
    outputs: Tensor = model(batch.x)
    if outputs.shape != y.shape:
        raise ConfigError(
            f"The model `{type(model).__name__}` returns {_kind(outputs)} for targets of shape {list(y.shape)}; "
            "the two must have the same shape (broadcasting would give a wrong mean). "
            "Leave model.outputs to the data set, or give the targets the shape [samples, components]."
        )
    return outputs, y


def _kind(t: Tensor) -> str:
    return f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}"
