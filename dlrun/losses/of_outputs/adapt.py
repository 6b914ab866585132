"""A loss as it was named, made one of a model and a batch."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from torch import nn
from torch.nn import functional as F

from dlrun.errors import ConfigError
from dlrun.losses.of_outputs.forms import arguments_of, is_of_outputs, name_of, other_inputs
from dlrun.losses.of_outputs.of_outputs import OfOutputs
from dlrun.losses.of_outputs.torch_loss import TorchLoss
from dlrun.losses.weighted_sum import WeightedSum
from dlrun.types import Loss


def adapt(loss: Any, *, last: bool = False) -> Loss:
    """A loss of PyTorch as one of a model and a batch; any other as it is. Of a sum each term is.

    `last`: logits of classes are the outputs' last axis, as of a text. Raises `ConfigError` for a loss of PyTorch that
    takes more than outputs and targets.
    """
    if isinstance(loss, WeightedSum):
        loss.set_terms(partial(adapt, last=last))
        return loss
    function, arguments = (loss.func, loss.keywords) if isinstance(loss, partial) else (loss, {})
    target = type(loss) if isinstance(loss, nn.Module) else function
    if refused := other_inputs(target):
        raise ConfigError(f"loss: {refused}")
    name = name_of(target)
    if name and isinstance(loss, nn.Module):
        arguments = arguments_of(loss, getattr(F, name))
    if name:
        return TorchLoss(name, arguments, title=target.__name__, last=last)
    return OfOutputs(loss) if is_of_outputs(target) else cast("Loss", loss)
