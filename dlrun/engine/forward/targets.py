"""Outputs and targets in their own unit, for metrics: a loss has them scaled (`Spec.target_scale`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dlrun.datasets.tensors.spec import TargetScale
from dlrun.errors import ConfigError
from dlrun.losses.entries import OfEntries, entry
from dlrun.losses.of_outputs.torch_loss import TorchLoss
from dlrun.losses.outputs import describe
from dlrun.losses.weighted_sum import WeightedSum
from dlrun.losses.with_forward import with_forward
from dlrun.types import Batch, Loss


def restored(scale: TargetScale | None, loss: Loss, model: nn.Module, batch: Batch) -> tuple[nn.Module, Batch]:
    """A model and a batch whose outputs and targets are raw; without a scale these themselves.

    Of several outputs those are scaled back that `loss` compares with the targets.
    """
    if scale is None:
        return model, batch
    raw = with_forward(model, lambda x: _undo(scale, loss, model(x)))
    return raw, batch._replace(y=scale.undo(batch.y))


def _undo(scale: TargetScale, loss: Loss, outputs: Any) -> Any:
    if _fits(scale, outputs):
        return scale.undo(outputs)
    if isinstance(loss, TorchLoss) and loss.form.outputs == "mean and variance":
        mean, variance = outputs
        variance = variance if variance.ndim == mean.ndim else variance.unsqueeze(-1)
        return scale.undo(mean), variance * scale.deviation.to(variance).square()
    names = _compared(loss)
    if not names or not all(_fits(scale, entry(outputs, name, "output")) for name in names):
        raise ConfigError(
            f"The targets are scaled, and the model returns {describe(outputs)}: nothing says what of it is to be "
            "scaled back for metrics. Name the output that is compared with the targets, as +loss.output=NAME, or do "
            "not scale them (scale_targets=false)."
        )
    if isinstance(outputs, Mapping):
        return {name: scale.undo(each) if str(name) in names else each for name, each in outputs.items()}
    return tuple(scale.undo(each) if str(place) in names else each for place, each in enumerate(outputs))


def _fits(scale: TargetScale, outputs: Any) -> bool:
    return isinstance(outputs, Tensor) and outputs.shape[-1:] == scale.mean.shape


def _compared(loss: Loss) -> set[str]:
    """The outputs by name that a loss, or the terms of a sum, compare with the targets."""
    parts = loss.terms.values() if isinstance(loss, WeightedSum) else [loss]
    return {part.output for part in parts if isinstance(part, OfEntries) and part.output is not None}
