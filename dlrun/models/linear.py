"""A linear map of the flattened input: linear regression, and softmax regression under cross-entropy.

Weights and bias are one matrix, of the inputs and a constant 1, so that a closed form can set them:
model(x) = features(x) @ coefficients. Weight decay acts on all of it, then, the bias too.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

__all__ = ["Linear"]


class Linear(nn.Module):
    """x [N, *input_shape] ↦ features(x) @ coefficients [N, outputs].

    `coefficients` is [F + 1, outputs] for F inputs, its last row the bias. `init_scale` multiplies
    the initial weights, which are uniform in ±1/√F; the bias begins at 0.

    >>> Linear((1, 28, 28), 10)(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """

    def __init__(self, input_shape: tuple[int, ...], outputs: int, *, init_scale: float = 1.0) -> None:
        super().__init__()
        inputs = prod(input_shape)
        bound = init_scale / inputs**0.5
        weight = torch.empty(inputs, outputs).uniform_(-bound, bound)
        self.coefficients = nn.Parameter(torch.cat([weight, torch.zeros(1, outputs)]))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs [N, O]; the same as features(x) @ coefficients, without the constant column."""
        return torch.addmm(self.coefficients[-1], x.flatten(1), self.coefficients[:-1])

    def features(self, x: Tensor) -> Tensor:
        """Return what the model is linear in, [N, F + 1]: the inputs and a constant 1."""
        x = x.flatten(1)
        return torch.cat([x, x.new_ones(len(x), 1)], dim=1)
