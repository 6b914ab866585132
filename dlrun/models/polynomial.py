"""A polynomial of one variable, f(x; α) = Σ_{d=0..D} α_d x^d (F. Fleuret, Deep Learning in PyTorch, slides 47-50).

Changed: gradient descent may learn the coefficients too. The powers make that ill-conditioned: the condition number of
the Vandermonde matrix grows exponentially with D. So `optimizer=least_squares` solves it exactly, and coefficients and
powers are of double precision: in single precision the exact fit of degree 15 to forty points is off by three orders
of magnitude.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError

__all__ = ["Polynomial"]


class Polynomial(nn.Module):
    """Polynomial: x [N, 1] ↦ features(x) @ coefficients [N, O].

    The coefficients [D + 1, O] begin at 0; the lowest power comes first. Raises `ConfigError` for other inputs, and for
    a negative degree.

    >>> model = Polynomial((1,), 1, degree=2)
    >>> model.features(torch.tensor([[2.0]]))
    tensor([[1., 2., 4.]], dtype=torch.float64)
    """

    powers: Tensor

    def __init__(self, input_shape: tuple[int, ...], outputs: int, *, degree: int = 3) -> None:
        super().__init__()
        if tuple(input_shape) not in ((), (1,)):
            raise ConfigError(
                f"model=polynomial has one variable; the inputs of this data set have the shape"
                f" {list(input_shape)}. Type `dataset=polynomial`, or `model=linear`."
            )
        if degree < 0:
            raise ConfigError(f"model.degree={degree}: expected 0 or more, as in `model.degree=3`.")
        # on the model's device, and not in its checkpoint
        self.register_buffer("powers", torch.arange(degree + 1), persistent=False)
        self.coefficients = nn.Parameter(torch.zeros(degree + 1, outputs, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """The values [N, O], in the type of `x`."""
        return (self.features(x) @ self.coefficients).to(x.dtype)

    def features(self, x: Tensor) -> Tensor:
        """The Vandermonde matrix [N, D + 1] in float64."""
        return x.double().reshape(-1, 1) ** self.powers
