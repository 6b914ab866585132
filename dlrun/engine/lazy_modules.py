"""Lazy modules, whose parameters have their shapes only after a first pass."""

from __future__ import annotations

from contextlib import nullcontext

from torch import nn
from torch.nn.parameter import is_lazy

from dlrun.engine.evaluation import evaluating
from dlrun.engine.own.modules import module_of
from dlrun.errors import ConfigError
from dlrun.types import Batch, Loss


def uninitialised(model: nn.Module) -> list[str]:
    """The names of parameters and buffers without a shape yet.

    >>> uninitialised(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)))
    ['0.weight', '0.bias']
    """
    return [name for name, t in [*model.named_parameters(), *model.named_buffers()] if is_lazy(t)]


def materialise(model: nn.Module, loss: Loss, batch: Batch) -> None:
    """Give lazy modules of the model, and of a loss that has some, their parameters, by a pass over a batch.

    Raises `ConfigError` for modules that the pass does not reach.
    """
    own = module_of(loss)
    with evaluating(model), evaluating(own) if own is not None else nullcontext():
        loss(model, batch)
    if left := uninitialised(model) + (uninitialised(own) if own is not None else []):
        raise ConfigError(
            f"The model `{type(model).__name__}` or its loss has lazy modules that a pass does not call: "
            f"{', '.join(left)}. "
            f"Give them their sizes (nn.Linear for nn.LazyLinear), or leave them out."
        )
