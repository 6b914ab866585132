"""How the weights of convolutions lie in memory: channel after channel, or all channels of a place side by side.

oneDNN's kernels on a CPU, and on a GPU those for tensor cores, want the channels side by side ("channels last"): a step
of the slides' network takes about half the time. Only weights are laid out anew; a convolution whose weights lie so
puts its inputs and outputs into the same order, in training and in evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from dlrun.engine.protocols import Optimizer
from dlrun.errors import ConfigError, UserError
from dlrun.optimizers.descent import Descent

Layout = Literal["contiguous", "channels_last"]

T = TypeVar("T")

_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def asked(given: str, before: Mapping[str, Any]) -> str:
    """Return the layout that is asked for: that which was given, or for `auto` that of an earlier part of the run."""
    return str(before.get("memory_format", given)) if given == "auto" else given


def decide(asked: str, model: nn.Module, optimizer: Optimizer, device: torch.device, precision: str) -> Layout:
    """Return the layout that was `asked` for, or for `auto` the one in which a step takes least time.

    Raises `ConfigError` where channels last is asked of an optimizer that cannot work on it.
    """
    if asked == "contiguous" or (asked == "auto" and not _pays(model, device, precision)):
        return "contiguous"
    if not bears(optimizer):
        if asked == "channels_last":
            raise ConfigError(
                f"trainer.memory_format=channels_last is not for {type(optimizer).__name__}, which takes the weights "
                f"as they lie in memory for one vector. Type trainer.memory_format=auto"
            )
        return "contiguous"
    return "channels_last"


def _pays(model: nn.Module, device: torch.device, precision: str) -> bool:
    # in fp32 a GPU's fastest kernels are those for contiguous memory
    suits = device.type == "cpu" or (device.type == "cuda" and precision != "fp32")
    return suits and any(isinstance(module, _CONVOLUTIONS) for module in model.modules())


def bears(optimizer: Optimizer) -> bool:
    """Return whether an optimizer is known to work on tensors that lie in memory in any order."""
    rule = optimizer.rule if isinstance(optimizer, Descent) else None
    origin = getattr(rule, "cls", type(rule)).__module__
    return rule is not None and origin.startswith(("dlrun.", "torch."))


def laid_out(model: nn.Module, layout: Layout, attempt: Callable[[], T], *, asked: str) -> tuple[Layout, T]:
    """Return the layout in which `attempt` succeeds, with what it returned; the weights lie so then.

    A model may rely on its activations' order, as `x.view(len(x), -1)` does: unless channels last was `asked` for,
    it keeps its own.
    """
    lay_out(model, layout)
    try:
        return layout, attempt()
    except UserError:
        if layout == asked or layout == "contiguous":
            raise
        lay_out(model, "contiguous")
        return "contiguous", attempt()


def lay_out(model: nn.Module, layout: Layout) -> None:
    """Put the weights of the model's convolutions in order; values stay, and the parameters are the same objects."""
    for module in model.modules():
        if isinstance(module, _CONVOLUTIONS):
            module.to(memory_format=_FORMATS[layout])  # type: ignore[call-overload]
