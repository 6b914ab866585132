"""Any loss of outputs and targets, `function(model(x), y)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from dlrun.types import Batch

__all__ = ["OfOutputs"]


class OfOutputs:
    """Calls `function` with a model's outputs and the targets, whatever they are.

    It returns one value a sample or their mean. Its further arguments are keys beside its `_target_`. A class is made
    first; weights of a module train with the model's.
    """

    bound = ("function",)
    """The arguments that are bound, not called: see `config.instantiate`."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """One value a sample, or their mean."""
        found: Any = self.function(model(batch.x), batch.y)
        if isinstance(self.function, nn.AdaptiveLogSoftmaxWithLoss):
            found = found.loss if torch.is_grad_enabled() else -found.output
        return cast("Tensor", found)
