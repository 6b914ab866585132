"""Square layers, each a matrix and then tanh per component, and a final linear classifier (F. Fleuret, The Little
Book of Deep Learning, 3.5, figure 3.4: eight layers of 2×2).

Changed: the book does not say how the matrices begin. Here it is near the identity, so that the layers hardly
deform anything at first: of 24 seeds all came to part two moons, of 24 with random matrices 17.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError

__all__ = ["TanhLayers"]


class TanhLayers(nn.Module):
    """x [N, *input_shape] of F values ↦ outputs [N, O], through `depth` layers h ↦ tanh(W·h) with W of F×F.

    The matrices begin at 1 + `spread`·ε, ε normal. They have no bias; the classifier has one.

    >>> TanhLayers((2,), 2)(torch.zeros(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(self, input_shape: tuple[int, ...], outputs: int, *, depth: int = 8, spread: float = 0.1) -> None:
        super().__init__()
        if depth < 0 or spread < 0:
            raise ConfigError(f"model.depth={depth} and model.spread={spread} must both be 0 or more.")
        size = prod(input_shape)
        self.layers = nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in range(depth)))
        self.classifier = nn.Linear(size, outputs)
        with torch.no_grad():
            for matrix in self.layers.parameters():
                matrix.copy_(torch.eye(size) + spread * torch.randn(size, size))

    def trajectory(self, x: Tensor) -> list[Tensor]:
        """Return where the points are after 0, 1, … `depth` layers, each [N, F]."""
        places = [x.flatten(1)]
        for layer in self.layers:
            places.append(torch.tanh(layer(places[-1])))
        return places

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs [N, O]."""
        outputs: Tensor = self.classifier(self.trajectory(x)[-1])
        return outputs
