"""Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): momentum, made orthogonal, for the matrices within.

The update of a matrix is its momentum M = U·S·Vᵀ with singular values of about one, U·Vᵀ, computed by five
Newton-Schulz iterations X ← a·X + (b·A + c·A²)·X with A = X·Xᵀ. Changed: by default the update is scaled to
the size of AdamW's (Liu et al. 2025, arXiv:2502.16982), so that AdamW's rate and weight decay can be kept; and
matrices of one shape are computed together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod, sqrt
from typing import Any, Literal

import torch
from torch import Tensor

from dlrun.errors import ConfigError
from dlrun.optimizers.adam import Adam
from dlrun.optimizers.parameters import check_rate, restore
from dlrun.types import Rule

__all__ = ["Muon"]

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""The quintic's a, b and c, chosen for the steepest slope at zero: singular values end between 0.7 and 1.2."""

SMALLEST = 1e-7
"""The least divisor of a matrix, in the place of a smaller norm."""


@dataclass
class Muon:
    """Muon for hidden matrices, AdamW for all else.

    All else are embeddings, the matrix of the outputs, biases and norms. A hidden matrix takes the step v ← μ·v +
    (1-μ)·g, p ← (1 - lr·λ)·p - lr·s·orthogonalised((1-μ)·g + μ·v), or of v itself without `nesterov`. The scale s of an
    m × n matrix is 0.2·√max(m, n) (`scale: adamw`) or √max(1, m/n) (`original`, for which Jordan's rate is 0.02). The
    kernel of a convolution is the matrix of its output channels. With `normalise` a matrix of m rows is first scaled to
    the Frobenius norm √m, which takes the place of decay. `precision: null` iterates in bfloat16 on a GPU and in single
    precision elsewhere. AdamW takes the rate `adam_ratio`·lr; another rule for all else is given as `others`, which has
    its own rate and decay, and the schedule of lr. The numbers are those of `torch.optim.Muon` and `AdamW`, to the
    rounding.

    >>> rule, p = Muon(lr=0.1, steps=8), torch.zeros(2, 2)
    >>> rule.init([p], [True])
    >>> rule.update([p], [torch.tensor([[3.0, 0.0], [0.0, -0.5]])], rule.lr)
    >>> bool((p.abs().diag() / (0.1 * 0.2 * 2**0.5) - 1 < 0.3).all())
    True
    """

    lr: float
    momentum: float = 0.95
    nesterov: bool = True
    steps: int = 5
    scale: Literal["adamw", "original"] = "adamw"
    weight_decay: float = 0.1
    precision: Literal["bf16", "fp32"] | None = None
    normalise: bool = False
    others: Rule | None = None
    adam_ratio: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    hidden: list[bool] | None = field(default=None, init=False, repr=False)
    """True for hidden matrices, set before `init`; None: all parameters with two axes or more."""
    _rule: Rule = field(init=False, repr=False)
    _places: list[int] = field(default_factory=list, init=False, repr=False)
    _others: list[int] = field(default_factory=list, init=False, repr=False)
    _decays: list[bool] = field(default_factory=list, init=False, repr=False)
    _velocity: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise `ConfigError` for values outside their ranges."""
        check_rate("lr", self.lr)
        check_rate("momentum", self.momentum, below=1.0)
        check_rate("adam_ratio", self.adam_ratio)
        if not 1 <= self.steps < 100:
            raise ConfigError(f"optimizer.steps is {self.steps}; expected 1 to 99. Type optimizer.steps=5")
        rate = self.lr * self.adam_ratio
        adam = Adam(rate, self.beta1, self.beta2, self.eps, weight_decay=self.weight_decay, decoupled=True)
        self._rule = adam if self.others is None else self.others

    def init(self, params: list[Tensor], decay: list[bool]) -> None:
        """Allocate the velocities, and AdamW's state for the others."""
        hidden = self.hidden if self.hidden is not None else [p.ndim >= 2 for p in params]
        self._places = [i for i, h in enumerate(hidden) if h]
        self._others = [i for i, h in enumerate(hidden) if not h]
        self._decays = decay
        self._velocity = [torch.zeros_like(params[i], requires_grad=False) for i in self._places]
        if any(params[i].is_complex() for i in self._places):
            raise ConfigError(
                "optimizer=muon makes real matrices orthogonal; the model has complex ones. Type optimizer=adamw"
            )
        if self._others:
            self._rule.init([params[i] for i in self._others], [decay[i] for i in self._others])

    @torch.no_grad()
    def update(self, params: list[Tensor], grads: list[Tensor], lr: float) -> None:
        """Change `params` in place, at the rate `lr`."""
        if self._others:
            others = self._others
            # both rates follow the schedule
            rate = lr * self.adam_ratio if self.others is None else self._rule.lr * (lr / self.lr if self.lr else 0.0)
            self._rule.update([params[i] for i in others], [grads[i] for i in others], rate)
        if not self._places:
            return
        matrices, slopes = [params[i] for i in self._places], [grads[i] for i in self._places]
        torch._foreach_lerp_(self._velocity, slopes, 1 - self.momentum)
        moved = list(torch._foreach_lerp(slopes, self._velocity, self.momentum)) if self.nesterov else self._velocity
        decayed = [params[i] for i in self._places if self._decays[i]]
        if self.weight_decay and decayed:  # decoupled, as AdamW's
            torch._foreach_mul_(decayed, 1 - lr * self.weight_decay)
        if self.normalise:
            sizes = torch._foreach_norm(matrices)
            torch._foreach_mul_(
                matrices, [len(m) ** 0.5 / n.clamp(min=SMALLEST) for m, n in zip(matrices, sizes, strict=True)]
            )
        for same in _by_shape(moved):
            stacked = torch.stack([moved[i].flatten(1) for i in same])
            found = orthogonalise(stacked, self.steps, dtype=self._dtype(stacked)).to(stacked.dtype)
            for i, update in zip(same, found, strict=True):
                matrices[i].add_(update.view_as(matrices[i]), alpha=-lr * self._scale(*stacked.shape[1:]))

    def _dtype(self, matrices: Tensor) -> torch.dtype:
        if self.precision is None:
            return torch.bfloat16 if matrices.is_cuda else matrices.dtype
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def _scale(self, rows: int, columns: int) -> float:
        # 0.2 is about the root mean square of AdamW's updates (Liu et al. 2025)
        return 0.2 * sqrt(max(rows, columns)) if self.scale == "adamw" else sqrt(max(1.0, rows / columns))

    def state_dict(self) -> dict[str, Any]:
        """The velocities, and the state of the rule of all else if it has a part."""
        return {"velocity": self._velocity, "adam": self._rule.state_dict() if self._others else {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the velocities and the other rule's state."""
        restore("velocity", self._velocity, state["velocity"])
        if self._others:
            self._rule.load_state_dict(state["adam"])


def orthogonalise(matrices: Tensor, steps: int = 5, *, dtype: torch.dtype | None = None) -> Tensor:
    """About U·Vᵀ for each of `matrices` U·S·Vᵀ [N, m, n].

    It is computed in `dtype`; its singular values are about one.
    """
    a, b, c = COEFFICIENTS
    x = matrices.to(dtype or matrices.dtype)
    # the Gram matrix of the shorter side is the smaller one
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    # at most one in the spectral norm, which the Frobenius norm bounds
    x = x / x.flatten(1).norm(dim=1).clamp(min=SMALLEST)[:, None, None]
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide else x.mT


def _by_shape(tensors: list[Tensor]) -> Iterator[list[int]]:
    """Yield the places of matrices alike in shape."""
    # in type and device too, so that one tensor can hold them
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i, t in enumerate(tensors):
        groups.setdefault((len(t), prod(t.shape[1:]), t.dtype, t.device), []).append(i)
    yield from groups.values()
