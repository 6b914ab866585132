"""A linear map of the flattened input: linear regression, or softmax regression with cross-entropy.

As in any textbook (such as Bishop 2006, Pattern Recognition and Machine Learning, 3.1 and 4.3.4). Changed: weights and
bias are one matrix, so that `optimizer=least_squares` can set them: model(x) = features(x) @ coefficients. Weight decay
acts on all of it, the bias too.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

__all__ = ["Linear"]


class Linear(nn.Module):
    """Linear map: x [N, *input_shape] ↦ features(x) @ coefficients [N, O].

    `coefficients` [F + 1, O] has the bias in its last row. Initial weights are uniform in ±`init_scale`/√F, the bias 0.

    >>> Linear((1, 28, 28), 10)(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """

    def __init__(self, input_shape: tuple[int, ...], outputs: int, *, init_scale: float = 1.0) -> None:
        super().__init__()
        inputs = prod(input_shape)
        # PyTorch's own range for a linear layer
        bound = init_scale / inputs**0.5
        weight = torch.empty(inputs, outputs).uniform_(-bound, bound)
        self.coefficients = nn.Parameter(torch.cat([weight, torch.zeros(1, outputs)]))

    def forward(self, x: Tensor) -> Tensor:
        """The outputs [N, O]."""
        # features(x) @ coefficients, without building the constant column
        return torch.addmm(self.coefficients[-1], x.flatten(1), self.coefficients[:-1])

    def features(self, x: Tensor) -> Tensor:
        """The inputs and a constant 1, [N, F + 1]."""
        x = x.flatten(1)
        return torch.cat([x, x.new_ones(x.shape[0], 1)], dim=1)
