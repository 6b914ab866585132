"""The order of convolution weights in memory: channel after channel, or all channels of a place side by side.

oneDNN's kernels on a CPU and a GPU's kernels for tensor cores want the channels side by side ("channels last"): a step
of the slides' network takes about half the time. Only weights are moved. A convolution puts its inputs and outputs
into the order of its weights, in training and in evaluation.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from dlrun.engine.protocols import Optimizer
from dlrun.errors import ConfigError
from dlrun.optimizers.descent import Descent

MemoryFormat = Literal["contiguous", "channels_last"]

_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def choose(
    requested: str, model: nn.Module, optimizer: Optimizer, device: torch.device, precision: str
) -> MemoryFormat:
    """The requested format, or for `auto` the fastest.

    Raises `ConfigError` for channels last and an optimizer that cannot work on it.
    """
    if requested == "contiguous" or (requested == "auto" and not pays(model, device, precision)):
        return "contiguous"
    if supports(optimizer):
        return "channels_last"
    if requested == "channels_last":
        raise ConfigError(
            f"trainer.memory_format=channels_last is not for {type(optimizer).__name__}, which takes the weights "
            f"as they lie in memory for one vector. Type trainer.memory_format=auto"
        )
    return "contiguous"


def pays(model: nn.Module, device: torch.device, precision: str) -> bool:
    """Is channels last faster?"""
    # in fp32 a GPU's fastest kernels are those for contiguous memory
    suits = device.type == "cpu" or (device.type == "cuda" and precision != "fp32")
    return suits and any(isinstance(module, _CONVOLUTIONS) for module in model.modules())


def supports(optimizer: Optimizer) -> bool:
    """Does an optimizer work in any memory order?"""
    # those of dlrun and torch do; of others it is not known
    rule = optimizer.rule if isinstance(optimizer, Descent) else None
    origin = getattr(rule, "cls", type(rule)).__module__
    return rule is not None and origin.startswith(("dlrun.", "torch."))


def apply(model: nn.Module, memory_format: MemoryFormat) -> None:
    """Reorder the weights of convolutions, in place."""
    for module in model.modules():
        if isinstance(module, _CONVOLUTIONS):
            module.to(memory_format=_FORMATS[memory_format])  # type: ignore[call-overload]
