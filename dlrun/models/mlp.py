"""A multi-layer perceptron on the flattened input (Rumelhart et al. 1986, Nature 323).

Changed: the activation is a choice, ReLU by default, followed by dropout (Srivastava et al. 2014).
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError

__all__ = ["MLP"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class MLP(nn.Module):
    """Perceptron: x [N, *input_shape] ↦ outputs [N, O].

    It has `depth` hidden layers of `width` units. `hidden` gives the sizes one by one instead. `init_scale` multiplies
    PyTorch's initial weights and biases. Raises `ConfigError` for numbers out of range.

    >>> MLP((1, 28, 28), 10, width=64)(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        outputs: int,
        *,
        width: int = 128,
        depth: int = 1,
        hidden: list[int] | None = None,
        activation: Literal["relu", "gelu", "silu", "elu", "tanh", "sigmoid"] = "relu",
        dropout: float = 0.0,
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        sizes = hidden if hidden is not None else [width] * depth
        if depth < 0 or min(sizes, default=1) < 1:
            raise ConfigError(
                f"The hidden layers of model=mlp are {sizes} (depth {depth}); expected sizes of 1 or more, as in"
                f" `model.width=128 model.depth=2` or `model.hidden=[128,64]`."
            )
        if not 0 <= dropout < 1:
            raise ConfigError(
                f"model.dropout={dropout}: expected at least 0 and less than 1, as in `model.dropout=0.1`."
            )
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise([prod(input_shape), *sizes]):
            layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation]()]
            # no layer for a dropout of 0: it would only take time
            layers += [nn.Dropout(dropout)] if dropout else []
        self.layers = nn.Sequential(*layers, nn.Linear([prod(input_shape), *sizes][-1], outputs))
        if init_scale != 1.0:
            with torch.no_grad():
                for p in self.parameters():
                    p.mul_(init_scale)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs [N, O]."""
        # of vectors, no view to make: it would show on a small network
        outputs: Tensor = self.layers(x if x.ndim == 2 else x.flatten(1))
        return outputs
