"""LoRA: adapters of low rank beside frozen matrices (Hu et al. 2021, arXiv:2106.09685).

h = W·x + α/r · B·A·x, with A [r, in] and B [out, r]. A begins as in the paper's code (uniform, as PyTorch's linear
layers), B at zero, so the adapted model begins as the one that it is made of.

Changed: the combined matrix of an attention's queries, keys and values is adapted as one. Adapters have no dropout.

A layer keeps its weights under their names, `weight`, and has `weight_lora_a` and `weight_lora_b` beside them, so a
state dict says what it takes to merge it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import linear

A, B, SCALE = "_lora_a", "_lora_b", "_lora_scale"
"""What the names of an adapter's tensors have after that of the matrix."""


class LoraLinear(nn.Linear):
    """A linear layer with an adapter.

    Who asks for its `weight`, as fused kernels do, gets the merged one.
    """

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The merged matrix."""
        found: Tensor = merged(self, "weight")
        return found

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of the frozen layer, and of its adapter."""
        down, up = self._parameters["weight" + A], self._parameters["weight" + B]
        base = F.linear(x, self._parameters["weight"], self.bias)  # type: ignore[arg-type]
        adapted: Tensor = F.linear(F.linear(x, down), up)  # type: ignore[arg-type]
        return base + self._buffers["weight" + SCALE] * adapted  # type: ignore[operator]


class LoraAttention(nn.MultiheadAttention):
    """PyTorch's attention with adapters; that of `out_proj` is in its own layer."""

    in_proj_weight = property(lambda self: merged(self, "in_proj_weight"))
    q_proj_weight = property(lambda self: merged(self, "q_proj_weight"))
    k_proj_weight = property(lambda self: merged(self, "k_proj_weight"))
    v_proj_weight = property(lambda self: merged(self, "v_proj_weight"))


ADAPTED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: LoraLinear,
    linear.NonDynamicallyQuantizableLinear: LoraLinear,
    nn.MultiheadAttention: LoraAttention,
}
"""The classes with adapters, by the classes that get them; a subclass may compute anything."""


def merged(module: nn.Module, name: str) -> Any:
    """A matrix with its adapter added; None where the layer has none of this name."""
    weight = module._parameters[name]
    if weight is None or name + A not in module._parameters:
        return weight
    down, up, scale = module._parameters[name + A], module._parameters[name + B], module._buffers[name + SCALE]
    return torch.addmm(weight, up, down * scale)  # type: ignore[arg-type, operator]


def adaptable(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that can have an adapter, by name."""
    return {name: module for name, module in model.named_modules() if type(module) in ADAPTED}


def adapt(module: nn.Module, rank: int, alpha: float, generator: torch.Generator | None = None) -> None:
    """Give a layer an adapter for each of its matrices, A drawn by `generator`, and freeze these.

    Its class changes: it stays the same object, wherever the model has it.

    >>> layer, x = nn.Linear(3, 2), torch.ones(1, 3)
    >>> before = layer(x)
    >>> adapt(layer, rank=1, alpha=1.0)
    >>> torch.equal(layer(x), before), [name for name, _ in layer.named_parameters()]
    (True, ['weight', 'bias', 'weight_lora_a', 'weight_lora_b'])
    """
    own = [(name, p) for name, p in module.named_parameters(recurse=False) if p.ndim == 2 and name.endswith("weight")]
    for name, weight in own:
        weight.requires_grad_(False)
        rows, columns = weight.shape
        down = nn.Parameter(torch.empty(rank, columns, dtype=weight.dtype, device=weight.device))
        nn.init.kaiming_uniform_(down, a=sqrt(5), generator=generator)
        module.register_parameter(name + A, down)
        module.register_parameter(name + B, nn.Parameter(weight.new_zeros(rows, rank)))
        module.register_buffer(name + SCALE, torch.tensor(alpha / rank, dtype=weight.dtype, device=weight.device))
    module.__class__ = ADAPTED[type(module)]


def is_adapter(name: str) -> bool:
    """Is this the name of a tensor of an adapter?"""
    return name.endswith((A, B, SCALE))


def merge(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict with its adapters added to the matrices, for the model without them.

    >>> ones = torch.ones(2, 2)
    >>> adapter = {"weight_lora_a": ones[:1], "weight_lora_b": ones[:, :1], "weight_lora_scale": ones[0, 0]}
    >>> merge({"weight": ones, **adapter})
    {'weight': tensor([[2., 2.],
            [2., 2.]])}
    """
    found = {name: value for name, value in state.items() if not is_adapter(name)}
    for name, weight in found.items():
        if name + A in state:
            down, up, scale = (state[name + end].double() for end in (A, B, SCALE))
            # two thin matrices of a file from elsewhere can have a product of any size
            if (*up.shape[:1], *down.shape[1:]) != weight.shape or scale.numel() != 1:
                raise RuntimeError(f"{name} is {list(weight.shape)}, its adapter {list(up.shape)} × {list(down.shape)}")
            found[name] = (weight.double() + scale * (up @ down)).to(weight.dtype)
    return found
