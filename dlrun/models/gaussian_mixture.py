"""Mixtures of normal distributions with full covariances (Dempster, Laird, Rubin 1977, J. R. Stat. Soc. B 39).

A component has the density |P| (2π)^(-D/2) exp(-‖P(x - μ)‖²/2) with a lower triangular P, so that PᵀP is the inverse of
its covariance. P's diagonal is exp(·) of that of its parameter: gradient descent can leave nothing valid.
"""

from __future__ import annotations

from math import log, pi
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError, RunError

__all__ = ["GaussianMixture"]


class GaussianMixture(nn.Module):
    """Mixture of normals: x [N, D] ↦ log p(x) [N], in nats.

    At first all `components` have the same weight and the covariance 1; their means are normal with deviation
    `init_scale`. Raises `ConfigError` for inputs other than vectors, and for numbers out of range.

    >>> GaussianMixture((2,), components=3)(torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    def __init__(self, input_shape: tuple[int, ...], *, components: int = 8, init_scale: float = 1.0) -> None:
        super().__init__()
        self.size = vector_size(input_shape, model="A mixture of normal distributions")
        if components < 1:
            raise ConfigError(f"model.components={components}: expected 1 or more, as in `model.components=8`.")
        if not 0 <= init_scale < float("inf"):
            raise ConfigError(f"model.init_scale={init_scale}: expected 0 or more, as in `model.init_scale=1`.")
        # one component alone needs no difference from others
        spread = init_scale if components > 1 else 0.0
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(spread * torch.randn(components, self.size))
        self.precisions = nn.Parameter(torch.zeros(components, self.size, self.size))

    def forward(self, x: Tensor) -> Tensor:
        """The log-densities [N]."""
        return self.log_prob(x)

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-densities [N]."""
        return log_joint(x, self.logits, self.means, self.precisions).logsumexp(-1)

    @torch.no_grad()
    def responsibilities(self, x: Tensor) -> Tensor:
        """The posterior p(k | x) of each component, float64 [N, K], on the CPU."""
        return log_joint(_exact(x), *map(_exact, (self.logits, self.means, self.precisions))).softmax(-1)

    @torch.no_grad()
    def maximise(self, x: Tensor, weights: Tensor, reg_covar: float) -> None:
        """Set the parameters of the highest likelihood, given each sample's share of each component.

        `weights` are [N, K]. `reg_covar` is added to the covariances' diagonals. Raises `RunError` if one is singular.
        """
        x, share = _exact(x), _exact(weights)
        # as scikit-learn: a component without samples has a mean nevertheless
        count = share.sum(0) + 10 * torch.finfo(share.dtype).eps
        means = share.T @ x / count[:, None]
        off = x - means[:, None]  # [K, N, D]
        covariances = (share.T[:, :, None] * off).mT @ off / count[:, None, None]
        eye = torch.eye(self.size, dtype=x.dtype)
        factors, failed = torch.linalg.cholesky_ex(covariances + reg_covar * eye)
        if bool(failed.any()):
            raise RunError(
                f"The covariance of component {int(failed.nonzero()[0])} is singular: its samples lie in fewer than "
                f"{self.size} dimensions. Type optimizer.reg_covar=1e-6, or fewer components."
            )
        precisions = torch.linalg.solve_triangular(factors, eye.expand_as(factors), upper=False)
        self.logits.copy_((count / count.sum()).log())
        self.means.copy_(means)
        self.precisions.copy_(precisions.tril(-1) + torch.diag_embed(precisions.diagonal(dim1=1, dim2=2).log()))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `n` samples, [n, D], by a generator of the CPU."""
        logits, means, precisions = (p.cpu() for p in (self.logits, self.means, self.precisions))
        component = torch.multinomial(logits.softmax(-1), n, replacement=True, generator=generator)
        noise = torch.randn(n, self.size, 1, generator=generator, dtype=means.dtype)
        off: Tensor = torch.linalg.solve_triangular(triangular(precisions)[component], noise, upper=False)
        return means[component] + off.squeeze(-1)


def log_joint(x: Tensor, logits: Tensor, means: Tensor, precisions: Tensor) -> Tensor:
    """log p(x, k) [N, K] of the parameters [K], [K, D] and [K, D, D]."""
    off = x[:, None] - means  # [N, K, D]
    # far from the means, products of bfloat16 numbers are off by a nat
    with torch.autocast(x.device.type, enabled=False):
        scaled = torch.einsum("kij,nkj->nki", triangular(precisions), off)
    volume = precisions.diagonal(dim1=-2, dim2=-1).sum(-1) - 0.5 * log(2 * pi) * x.shape[-1]
    return logits.log_softmax(-1) + volume - 0.5 * scaled.square().sum(-1)


def triangular(precisions: Tensor) -> Tensor:
    """P [K, D, D], lower triangular, its diagonal positive."""
    return precisions.tril(-1) + torch.diag_embed(precisions.diagonal(dim1=-2, dim2=-1).exp())


def vector_size(input_shape: tuple[int, ...], *, model: str) -> int:
    """The components of an input vector.

    Raises `ConfigError` for inputs of more axes: of pixels, which take few values, a density has no bound.
    """
    if len(input_shape) != 1:
        raise ConfigError(
            f"{model} is a density of vectors; the inputs have the shape {list(input_shape)}. "
            "Choose a data set of vectors, such as dataset=moons."
        )
    return input_shape[0]


def _exact(values: Any) -> Tensor:
    # on the CPU: MPS has no float64
    found: Tensor = values.detach().cpu().double()
    return found
