"""Outputs and targets in their own unit, for metrics: a loss has them scaled (`Spec.target_scale`)."""

from __future__ import annotations

from torch import Tensor, nn

from dlrun.datasets.tensors.spec import TargetScale
from dlrun.losses.with_forward import with_forward
from dlrun.types import Batch


def restored(scale: TargetScale | None, model: nn.Module, batch: Batch) -> tuple[nn.Module, Batch]:
    """A model and a batch whose outputs and targets are raw; without a scale these themselves."""
    if scale is None:
        return model, batch
    raw = with_forward(model, lambda x: _undo(scale, model(x)))
    return raw, batch._replace(y=scale.undo(batch.y))


def _undo(scale: TargetScale, outputs: object) -> object:
    fits = isinstance(outputs, Tensor) and outputs.shape[-1:] == scale.mean.shape
    return scale.undo(outputs) if fits and isinstance(outputs, Tensor) else outputs
