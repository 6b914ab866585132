"""Adam (Kingma and Ba 2015) and, with decoupled weight decay, AdamW (Loshchilov and Hutter 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from dlrun.optimizers.parameters import (
    Group,
    check_rate,
    choose_fused,
    group_params,
    pick,
    real_views,
    restore,
    uses_fused,
)

__all__ = ["Adam"]


@dataclass
class Adam:
    """Adam, or with decoupled weight decay AdamW.

    p ← p - lr·m̂ / (√v̂ + ε), with m and v the moving averages of g and g², corrected for their start. `weight_decay` λ
    adds λ·p to the gradient (L2); `decoupled`, it multiplies p by 1 - lr·λ: that is AdamW. It acts on matrices and
    kernels only, unless `decay_all`. `fused: null` takes torch's fused kernel where the device has one; the numbers are
    those of `torch.optim.Adam` and `AdamW` to the bit, kernel for kernel. A complex weight counts as two real ones.

    >>> rule, p = Adam(lr=0.1), torch.ones(2)
    >>> rule.init([p], [True])
    >>> rule.update([p], [torch.ones(2)], rule.lr)
    >>> p
    tensor([0.9000, 0.9000])
    """

    elementwise: ClassVar[bool] = True
    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False
    decay_all: bool = False
    fused: bool | None = None
    _groups: list[Group] = field(default_factory=list, init=False, repr=False)
    _mean: list[Tensor] = field(default_factory=list, init=False, repr=False)
    _square: list[Tensor] = field(default_factory=list, init=False, repr=False)
    _steps: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise `ConfigError` for values outside their ranges."""
        check_rate("lr", self.lr)
        check_rate("beta1", self.beta1, below=1.0)
        check_rate("beta2", self.beta2, below=1.0)
        check_rate("eps", self.eps)
        check_rate("weight_decay", self.weight_decay)

    def init(self, params: list[Tensor], decay: list[bool]) -> None:
        """Allocate the two averages and the count of steps."""
        self._groups = group_params(params, [d or self.decay_all for d in decay], self.weight_decay)
        self._use_fused = choose_fused(params, self.fused)
        self._mean = [torch.zeros_like(p, requires_grad=False) for p in params]
        self._square = [torch.zeros_like(p, requires_grad=False) for p in params]
        # the count lies where it is read: the fused kernel reads it on the device, the others on the host
        homes = [params[group.places[0]].device if self._use_fused else "cpu" for group in self._groups]
        self._steps = [torch.zeros((), device=home) for home in homes]

    @torch.no_grad()
    def update(self, params: list[Tensor], grads: list[Tensor], lr: float | Tensor) -> None:
        """Change `params` in place, at the rate `lr`.

        Each gradient has the strides of its parameter. The rate of a compiled or recorded step is a tensor.
        """
        update = self._fused if self._use_fused and uses_fused(params, lr) else self._foreach
        for i, group in enumerate(self._groups):
            self._steps[i].add_(1.0)
            update(i, pick(params, group), pick(grads, group), lr)

    def _fused(self, i: int, params: list[Tensor], grads: list[Tensor], lr: float | Tensor) -> None:
        group = self._groups[i]
        (torch._fused_adamw_ if self.decoupled else torch._fused_adam_)(
            params,
            grads,
            pick(self._mean, group),
            pick(self._square, group),
            [],  # no maxima: `amsgrad` is off
            [self._steps[i]] * len(params),  # the kernel takes a count for each
            lr=lr,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=group.weight_decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    def _foreach(self, i: int, params: list[Tensor], grads: list[Tensor], lr: float | Tensor) -> None:
        group, traced = self._groups[i], isinstance(lr, Tensor)
        # double, as the Python numbers of a step that is not traced
        t = self._steps[i].double() if traced else float(self._steps[i])
        mean, square = pick(self._mean, group), pick(self._square, group)
        if params[0].is_complex():
            # as in torch, the second moments are those of the real and the imaginary part, each for itself
            params, grads, mean, square = map(real_views, (params, grads, mean, square))
        if group.weight_decay and self.decoupled:
            torch._foreach_mul_(params, 1 - lr * group.weight_decay)
        elif group.weight_decay:
            grads = list(torch._foreach_add(grads, params, alpha=group.weight_decay))
        # these operations in this order, as torch's: the bits are equal
        torch._foreach_lerp_(mean, grads, 1 - self.beta1)
        torch._foreach_mul_(square, self.beta2)
        torch._foreach_addcmul_(square, grads, grads, 1 - self.beta2)
        root = torch._foreach_sqrt(square)
        torch._foreach_div_(root, (1 - self.beta2**t) ** 0.5)
        torch._foreach_add_(root, self.eps)
        size = -lr / (1 - self.beta1**t)
        if isinstance(size, Tensor):  # `_foreach_addcdiv_` takes a number
            torch._foreach_add_(params, torch._foreach_mul(torch._foreach_div(mean, root), size))
        else:
            torch._foreach_addcdiv_(params, mean, root, size)

    def tensors(self) -> list[Tensor]:
        """The state, changed in place by a step."""
        return [*self._mean, *self._square, *self._steps]

    def state_dict(self) -> dict[str, Any]:
        """The number of steps and the two averages."""
        return {"steps": int(self._steps[0]), "mean": self._mean, "square": self._square}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the number of steps and the two averages."""
        restore("mean", self._mean, state["mean"])
        restore("square", self._square, state["square"])
        for steps in self._steps:
            steps.fill_(float(state["steps"]))
