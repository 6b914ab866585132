"""RealNVP: a density through an invertible network (Dinh, Sohl-Dickstein, Bengio 2017, arXiv:1605.08803).

A coupling leaves every other component as it is, and scales and shifts the rest by functions of those:
z = (x - t(x')) · exp(-s(x')). Its Jacobian is triangular, so log p(x) = log N(z; 0, 1) - Σ s. Changed:

- components in place of the paper's pixels and channels, and perceptrons in place of its convolutions;
- no batch normalisation, whose values would depend on the other samples of a batch;
- |s| < 2 by 2·tanh(·/2), where the paper's tanh has a learned scale; at first a coupling is the identity.
"""

from __future__ import annotations

from itertools import pairwise
from math import log, pi

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError
from dlrun.models.gaussian_mixture import vector_size

__all__ = ["RealNVP"]

LARGEST = 2.0
"""The bound of log-scales: eight couplings reach any scale of standardised data, and no step overflows."""


class Coupling(nn.Module):
    """An affine coupling of the components with `mask` 0, given those with `mask` 1."""

    def __init__(self, mask: Tensor, width: int, depth: int) -> None:
        super().__init__()
        size = len(mask)
        sizes = [size, *[width] * depth]
        layers = [(nn.Linear(a, b), nn.Tanh()) for a, b in pairwise(sizes)]
        self.hidden = nn.Sequential(*(module for pair in layers for module in pair))
        self.out = nn.Linear(sizes[-1], 2 * size)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.register_buffer("mask", mask, persistent=False)

    mask: Tensor

    def _scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self.out(self.hidden(x * self.mask)).chunk(2, -1)
        return LARGEST * torch.tanh(scale / LARGEST) * (1 - self.mask), shift * (1 - self.mask)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z [N, D] and log |det ∂z/∂x| [N]."""
        scale, shift = self._scale_and_shift(x)
        return (x - shift) * torch.exp(-scale), -scale.sum(-1)

    def inverse(self, z: Tensor) -> Tensor:
        """x [N, D] of z [N, D]."""
        scale, shift = self._scale_and_shift(z)
        result: Tensor = z * scale.exp() + shift
        return result


class RealNVP(nn.Module):
    """RealNVP of vectors: x [N, D] ↦ log p(x) [N], in nats.

    It has `couplings`, each with a perceptron of `depth` hidden layers of `width` units. At first it is the standard
    normal. Raises `ConfigError` for inputs other than vectors of two components or more, and for numbers out of range.

    >>> RealNVP((2,))(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    def __init__(self, input_shape: tuple[int, ...], *, couplings: int = 8, width: int = 64, depth: int = 2) -> None:
        super().__init__()
        size = vector_size(input_shape, model="model=realnvp")
        if size < 2:
            raise ConfigError(
                "model=realnvp needs two components or more: one changes by the others. Type model=gaussian"
            )
        if couplings < 1 or width < 1 or depth < 1:
            raise ConfigError(
                f"model.couplings={couplings}, width={width}, depth={depth}: expected 1 or more of each, as in "
                "`model.couplings=8 model.width=64 model.depth=2`."
            )
        even = (torch.arange(size) % 2 == 0).float()
        self.size = size
        self.couplings = nn.ModuleList(Coupling(1 - even if i % 2 else even, width, depth) for i in range(couplings))

    def forward(self, x: Tensor) -> Tensor:
        """The log-densities [N]."""
        return self.log_prob(x)

    def transform(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z [N, D], normal if x has the model's density, and log |det ∂z/∂x| [N]."""
        volume = x.new_zeros(x.shape[0])
        for coupling in self.couplings:
            x, more = coupling(x)
            volume = volume + more
        return x, volume

    def inverse(self, z: Tensor) -> Tensor:
        """x [N, D] of z [N, D]."""
        for coupling in reversed(self.couplings):
            z = coupling.inverse(z)  # type: ignore[operator]
        return z

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-densities [N]."""
        z, volume = self.transform(x)
        return volume - 0.5 * (z.square().sum(-1) + self.size * log(2 * pi))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` samples, [n, D], by a generator of the CPU."""
        device = next(self.parameters()).device
        return self.inverse(torch.randn(n, self.size, generator=generator).to(device))
