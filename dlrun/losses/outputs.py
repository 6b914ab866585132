"""A model's outputs beside the targets, checked for types and shapes that fit.

Only types and shapes are checked, never values: nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError, UserError
from dlrun.losses.class_axis import axis_of, on_axis_1
from dlrun.terminal.format import counted
from dlrun.types import IGNORE_INDEX, Batch


def logits_and_classes(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The model's logits [..., C] and the batch's class numbers int64 [...].

    Of a class for each element, [B, ...], logits [B, C, ...] are turned to [B, ..., C].

    Raises `ConfigError` for targets that are not class numbers, and for outputs other than one logit a class.
    """
    y = batch.y if batch.plain else _unmasked(batch)
    if y.dtype != torch.int64:
        if y.is_floating_point():
            raise ConfigError(
                f"The targets are {kind_of(y)}; a loss of classes, such as loss=cross_entropy, needs class numbers. "
                "For real-valued targets type loss=mse"
            )
        y = y.long()
    logits = _outputs(model, batch)
    if y.ndim > 1:
        logits = _classes_last(model, logits, y)
    # one output a sample is a regression, or a binary classifier with a sigmoid: no softmax
    if logits.shape[:-1] != y.shape or logits.shape[-1] < 2:
        raise ConfigError(
            f"The model `{type(model).__name__}` returns {kind_of(logits)} for class numbers of shape {list(y.shape)}; "
            f"expected logits of shape {[*y.shape, 'classes']}{_or_second(y)}, with at least 2 classes. "
            f"{_density(model)}Leave model.outputs to the data set, or type loss=mse for a regression."
        )
    return logits, y


def _classes_last(model: nn.Module, logits: Tensor, y: Tensor) -> Tensor:
    """Logits [B, C, ...], as PyTorch's losses have them of pictures, with the classes last; others as they are."""
    if (logits.shape[0], *logits.shape[2:]) != y.shape:
        return logits
    first = on_axis_1(logits.shape, y.shape, axis_of(model))
    if first is None and y.ndim > 2:  # of a text with as many tokens as classes these are last
        raise ConfigError(
            f"The model `{type(model).__name__}` returns {kind_of(logits)}: the classes may be on axis 1 or last. Give "
            "it an attribute `class_axis = 1` or `class_axis = -1`."
        )
    return logits.movedim(1, -1) if first else logits


def _or_second(y: Tensor) -> str:
    return f" or {[y.shape[0], 'classes', *y.shape[1:]]}" if y.ndim > 1 else ""


def _targets(batch: Batch) -> Tensor:
    """The targets of a batch. Raises `ConfigError` for a nest of them."""
    y = batch.y
    if isinstance(y, Tensor):
        return y
    raise ConfigError(
        f"The targets are {describe(y)}; this loss or metric needs a tensor. Name an entry, as +loss.target=NAME or "
        "+metrics.NAME.target=NAME, or write one of your own, which takes the entry that it needs."
    )


def _unmasked(batch: Batch) -> Tensor:
    """The classes of a batch, those of padding as `IGNORE_INDEX`. Raises `ConfigError` for a nest of them."""
    y, mask = _targets(batch), batch.mask
    if mask is None or mask.shape != y.shape or y.is_floating_point():
        return y
    return y.long().masked_fill(~mask, IGNORE_INDEX)


def embeddings_and_classes(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The model's outputs [B, D] as embeddings, and the class numbers int64 [B].

    Raises `ConfigError` for others.
    """
    y = _targets(batch)
    if y.is_floating_point() or y.ndim != 1:
        raise ConfigError(
            f"The targets are {kind_of(y)}; a loss of embeddings, such as loss=triplet, needs a class number for each "
            "sample."
        )
    outputs = _outputs(model, batch)
    if outputs.ndim != 2 or len(outputs) != len(y):
        raise ConfigError(
            f"The model `{type(model).__name__}` returns {kind_of(outputs)} for {len(y)} samples; expected embeddings "
            f"[{len(y)}, D]."
        )
    return outputs, y.long()


def outputs_and_targets(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """The model's outputs and the targets of a regression, both [B, ...].

    Raises `ConfigError` for class numbers, and for shapes that differ: they would broadcast.
    """
    y = batch.y if batch.plain else _targets(batch)
    if not y.is_floating_point():
        raise ConfigError(
            f"The targets are {kind_of(y)}; a loss of a regression, such as loss=mse, needs real values. "
            "For class numbers type loss=cross_entropy"
        )
    outputs = _outputs(model, batch)
    if outputs.shape != y.shape:
        raise ConfigError(
            f"The model `{type(model).__name__}` returns {kind_of(outputs)} for targets of shape {list(y.shape)}; "
            "expected the same shape: broadcasting would give a wrong mean. "
            "Leave model.outputs to the data set, or give the targets the shape [samples, components]."
        )
    return outputs, y


def rows(model: nn.Module, x: Tensor) -> Tensor:
    """The model's outputs, a row for each of the inputs [B, ...].

    Raises `UserError` that says what it returns instead.
    """
    outputs: Any = model(x)
    if isinstance(outputs, Tensor) and outputs.shape[:1] == x.shape[:1]:
        return outputs
    raise UserError(
        f"The model `{type(model).__name__}` returns {describe(outputs)} for {counted(len(x), 'sample')}; expected a "
        f"tensor [{len(x)}, …], a row for each. To look at it, ask in Python: "
        "`run = dlrun.load(RUN)`, then `run.model(run.prepare(raw))`."
    )


def describe(value: Any) -> str:
    """The type and shape of what a model or loss returned, or of a batch's part, for a message.

    >>> describe({"a": torch.zeros(2, 3)}), describe((torch.zeros(2), 4))
    ('a dict (a: float32 [2, 3])', 'a tuple (float32 [2], int)')
    """
    kind = type(value).__name__
    if isinstance(value, Tensor):
        return f"a tensor {kind_of(value)}"
    if isinstance(value, Mapping):
        return f"a {kind} ({', '.join(f'{name}: {_part(part)}' for name, part in value.items())})"
    if isinstance(value, (tuple, list)):
        return f"a {kind} ({', '.join(map(_part, value))})"
    return f"a {kind}"


def _part(value: Any) -> str:
    return kind_of(value) if isinstance(value, Tensor) else type(value).__name__


def _density(model: nn.Module) -> str:
    return "Its `log_prob` is a density's: type loss=nll. " if callable(getattr(model, "log_prob", None)) else ""


def _outputs(model: nn.Module, batch: Batch) -> Tensor:
    outputs: object = model(batch.x)
    if not isinstance(outputs, Tensor):
        entry = ""
        if isinstance(outputs, (Mapping, tuple, list)):
            entry = "Name an entry, as +loss.output=NAME or +metrics.NAME.output=NAME (of a tuple its number). "
        raise ConfigError(
            f"The model `{type(model).__name__}` returns {describe(outputs)}; this loss or metric needs a tensor. "
            f"{entry}If the model returns its loss itself, type loss=own; a loss of your own may take anything."
        )
    return outputs


def kind_of(t: Tensor) -> str:
    """The type and shape of a tensor, for a message."""
    return f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}"
