"""The share of a model's auxiliary heads in the loss.

    loss = loss(main outputs) + auxiliary_weight · Σ loss(outputs of a head)

It is of training alone: evaluation, and metrics, see the main outputs (`types.AuxiliaryHeads`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Concatenate, ParamSpec, cast

import torch
from torch import Tensor, nn

from dlrun.losses.weighted import Values
from dlrun.losses.with_forward import with_forward
from dlrun.types import AuxiliaryHeads, Batch

Arguments = ParamSpec("Arguments")
MeanLoss = Callable[Concatenate[nn.Module, Batch, Arguments], Values]


def has_auxiliary_heads(model: nn.Module) -> bool:
    """Has the model auxiliary heads with a share of the loss?"""
    # first of the class: a module looks an attribute that it lacks up in three tables, in every step
    return hasattr(type(model), "all_outputs") and bool(getattr(model, "auxiliary_weight", 0.0))


def with_auxiliary_heads(loss: MeanLoss[Arguments]) -> MeanLoss[Arguments]:
    """Make a loss add the share of auxiliary heads in training.

    The loss is called with the model for each head, where calling the model gives the head's outputs.
    """

    @wraps(loss)
    def total(model: nn.Module, batch: Batch, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Values:
        if not (has_auxiliary_heads(model) and model.training and torch.is_grad_enabled()):
            return loss(model, batch, *args, **kwargs)
        main, *others = (
            loss(_returning(model, outputs), batch, *args, **kwargs)
            for outputs in cast("AuxiliaryHeads", model).all_outputs(batch.x)
        )
        return add_shares(main, others, cast("AuxiliaryHeads", model).auxiliary_weight)

    # `wraps` loses that the arguments may be given by place
    return cast("MeanLoss[Arguments]", total)


def add_shares(main: Values, others: Sequence[Values], weight: float) -> Values:
    """The main loss and `weight` times each other one; of means with the sum of their weights too."""
    share = weight * sum(other[0] if isinstance(other, tuple) else other for other in others)
    return (main[0] + share, main[1]) if isinstance(main, tuple) else main + share


def _returning(model: nn.Module, outputs: Tensor) -> nn.Module:
    return with_forward(model, lambda x: outputs)
