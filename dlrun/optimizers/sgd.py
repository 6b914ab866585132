"""Stochastic gradient descent, with momentum (Polyak 1964) and Nesterov's variant (Sutskever et al. 2013)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from dlrun.errors import ConfigError
from dlrun.optimizers.parameters import Group, check_rate, choose_fused, group_params, pick, restore, uses_fused

__all__ = ["SGD"]


class _At(NamedTuple):
    """The rate and the weight decay of one step."""

    lr: float | Tensor
    decay: float


@dataclass
class SGD:
    """Gradient descent, with momentum and Nesterov's variant.

    v ← μ·v + (1-τ)·g, p ← p - lr·v, or with `nesterov` p - lr·(g + μ·v). `momentum` is μ and `dampening` is τ; the
    first step sets v = g, as `torch.optim.SGD` does. `weight_decay` λ adds λ·p to the gradient (L2), or, `decoupled`,
    multiplies p by 1 - lr·λ. It acts on matrices and kernels only, unless `decay_all`. `fused: null` takes torch's
    fused kernel where the device has one; the numbers are those of `torch.optim.SGD` to the bit, kernel for kernel.

    >>> rule, p = SGD(lr=0.1), torch.ones(2)
    >>> rule.init([p], [True])
    >>> rule.update([p], [torch.ones(2)], rule.lr)
    >>> p
    tensor([0.9000, 0.9000])
    """

    elementwise: ClassVar[bool] = True
    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0
    weight_decay: float = 0.0
    decoupled: bool = False
    decay_all: bool = False
    fused: bool | None = None
    _groups: list[Group] = field(default_factory=list, init=False, repr=False)
    _velocity: list[Tensor] = field(default_factory=list, init=False, repr=False)
    _first: bool = field(default=True, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise `ConfigError` for values outside their ranges."""
        check_rate("lr", self.lr)
        check_rate("momentum", self.momentum, below=1.0)
        check_rate("weight_decay", self.weight_decay)
        if self.nesterov and (self.momentum == 0.0 or self.dampening != 0.0):
            raise ConfigError(
                f"optimizer.nesterov=true with momentum {self.momentum} and dampening {self.dampening}; it needs "
                "a momentum above 0 and no dampening. Type for example optimizer.momentum=0.9"
            )

    def init(self, params: list[Tensor], decay: list[bool]) -> None:
        """Allocate the velocities, zero, if there is momentum."""
        self._groups = group_params(params, [d or self.decay_all for d in decay], self.weight_decay)
        self._velocity = [torch.zeros_like(p, requires_grad=False) for p in params] if self.momentum else []
        self._first = True
        self._use_fused = choose_fused(params, self.fused)

    @torch.no_grad()
    def update(self, params: list[Tensor], grads: list[Tensor], lr: float | Tensor) -> None:
        """Change `params` in place, at the rate `lr`.

        Each gradient has the strides of its parameter. The rate of a compiled or recorded step is a tensor.
        """
        step = self._fused if self._use_fused and uses_fused(params, lr) else self._foreach
        for group in self._groups:
            members, decay = pick(params, group), group.weight_decay
            if decay and self.decoupled:  # the kernels know only the L2 term
                torch._foreach_mul_(members, 1 - lr * decay)
                decay = 0.0
            step(members, pick(grads, group), pick(self._velocity, group) if self._velocity else [], _At(lr, decay))
        self._first = False

    def _fused(self, params: list[Tensor], grads: list[Tensor], velocity: list[Tensor], at: _At) -> None:
        torch._fused_sgd_(
            params,
            grads,
            velocity,
            weight_decay=at.decay,
            momentum=self.momentum,
            lr=at.lr,
            dampening=self.dampening,
            nesterov=self.nesterov,
            maximize=False,
            is_first_step=self._first and self.momentum != 0.0,
        )

    def _foreach(self, params: list[Tensor], grads: list[Tensor], velocity: list[Tensor], at: _At) -> None:
        if at.decay:
            grads = list(torch._foreach_add(grads, params, alpha=at.decay))
        if velocity:
            torch._foreach_mul_(velocity, self.momentum)
            # the first velocity is the gradient, undampened, as in torch
            torch._foreach_add_(velocity, grads, alpha=1.0 if self._first else 1 - self.dampening)
            grads = list(torch._foreach_add(grads, velocity, alpha=self.momentum)) if self.nesterov else velocity
        if isinstance(at.lr, Tensor):  # `alpha` is a number
            torch._foreach_sub_(params, torch._foreach_mul(grads, at.lr))
        else:
            torch._foreach_add_(params, grads, alpha=-at.lr)

    def tensors(self) -> list[Tensor]:
        """The state, changed in place by a step."""
        return self._velocity

    def state_dict(self) -> dict[str, Any]:
        """The velocities; `first` is true before the first step."""
        return {"velocity": self._velocity, "first": self._first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the velocities."""
        restore("velocity", self._velocity, state["velocity"])
        self._first = bool(state["first"])
