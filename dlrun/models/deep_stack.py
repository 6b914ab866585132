"""A deep stack of equal layers, to see how gradients travel (Glorot & Bengio 2010; Fleuret's book, 3.4).

A layer is tanh(W·h + b), relu(W·h + b), relu(norm(W·h) + b) or h + relu(W·norm(h) + b), with LayerNorm (Ba et al. 2016,
arXiv:1607.06450) and the residual connection before the norm (He et al. 2016, arXiv:1603.05027). Changed: biases are
modules of their own. The gradient of a bias is that of the activation's input, so its norm shows how gradients travel;
that of W has the activations in it too, and is about as small in the last layer of a plain stack as in the first.
"""

from __future__ import annotations

from math import prod, sqrt
from typing import Literal

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError

__all__ = ["DeepStack"]

Layer = Literal["tanh", "relu", "normalised", "residual"]
Init = Literal["normal", "glorot", "he"]


class DeepStack(nn.Module):
    """Deep stack: x [N, *input_shape] ↦ outputs [N, O].

    `depth` layers of `width` units, between two linear maps. Initial weights are normal, of variance `std`² (`normal`),
    2 / (fan in + fan out) (`glorot`) or 2 / fan in (`he`); biases are 0. Raises `ConfigError` for numbers out of range.

    >>> DeepStack((1, 8, 8), 10, depth=3)(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        outputs: int,
        *,
        width: int = 128,
        depth: int = 16,
        layer: Layer = "relu",
        init: Init = "he",
        std: float = 0.02,
    ) -> None:
        super().__init__()
        if width < 1 or depth < 1 or not std > 0:
            raise ConfigError(
                f"model.width={width} model.depth={depth} model.std={std}: expected 1 or more for width and depth, "
                f"and a standard deviation above 0."
            )
        self.enter = nn.Linear(prod(input_shape), width, bias=False)
        self.layers = nn.Sequential(*(_Layer(width, layer) for _ in range(depth)))
        self.leave = nn.Linear(width, outputs, bias=False)
        with torch.no_grad():
            for p in self.parameters():
                if p.ndim == 2:
                    fan_out, fan_in = p.shape
                    scale = {"normal": std, "glorot": sqrt(2 / (fan_in + fan_out)), "he": sqrt(2 / fan_in)}
                    p.normal_(0.0, scale[init])

    def forward(self, x: Tensor) -> Tensor:
        """The outputs [N, O]."""
        outputs: Tensor = self.leave(self.layers(self.enter(x.flatten(1))))
        return outputs


class _Layer(nn.Module):
    def __init__(self, width: int, kind: Layer) -> None:
        super().__init__()
        self.kind = kind
        self.linear = nn.Linear(width, width, bias=False)
        self.shift = _Shift(width)
        # without weights: they would scale the gradients
        self.norm = nn.LayerNorm(width, elementwise_affine=False)

    def forward(self, h: Tensor) -> Tensor:
        if self.kind == "tanh":
            return torch.tanh(self.shift(self.linear(h)))
        if self.kind == "relu":
            return torch.relu(self.shift(self.linear(h)))
        if self.kind == "normalised":
            return torch.relu(self.shift(self.norm(self.linear(h))))
        return h + torch.relu(self.shift(self.linear(self.norm(h))))


class _Shift(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.bias
