"""One step of gradient descent: a batch's gradient, accumulated and clipped, given to a rule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.engine.failures.explaining import is_out_of_memory
from dlrun.engine.failures.memory import Memory, TooLarge
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.losses.weighing import elements
from dlrun.types import IGNORE_INDEX, Batch, Rule, Update

Across = Callable[[Batch, Sequence[Tensor], int], tuple[Tensor, list[Tensor], Tensor | None]]
"""(part of a batch, parameters, portions) → mean loss of the part, gradient of the whole batch, the part's weight."""


class Descent:
    """Steps by a `rule` from a batch's gradient.

    `accumulate` cuts the batch into so many parts, of sizes equal to within one sample, and weights their losses by
    size, for text by predicted tokens: the same gradient with less memory. `clip` bounds the Euclidean norm of the
    whole gradient. The norm before clipping is reported. If `measure_norms` is set, at any step, so are the norm
    without clipping, that of each parameter's gradient, and the norm after clipping.
    A rule with an attribute `hidden`, as Muon, finds `Objective.hidden` there before `rule.init`. Sparse gradients are
    made dense, unless the rule has a true attribute `takes_sparse`.
    """

    def __init__(self, rule: Rule, *, clip: float | None = None, accumulate: int = 1) -> None:
        if clip is not None and not clip > 0:
            raise ConfigError(f"trainer.clip is {clip}; expected a norm above 0, or null. Type trainer.clip=1.0")
        if accumulate < 1:
            raise ConfigError(f"trainer.accumulate is {accumulate}; expected a whole number of at least 1.")
        self.rule = rule
        self.clip = clip
        self.accumulate = accumulate
        self._sparse = bool(getattr(rule, "takes_sparse", False))
        self.measure_norms = False
        self.across: Across | None = None
        """The gradient of a batch that several processes share."""
        self.memory = Memory()
        """What fits, and so cuts a batch further than `accumulate`."""
        self.norms: Callable[[list[Tensor]], Tensor] = parameter_norms
        """The norm of each gradient, of which a process may have a part."""

    @property
    def lr(self) -> float:
        """The learning rate, before the schedule."""
        return self.rule.lr

    def init(self, objective: Objective) -> None:
        """Allocate the rule's state.

        Raises `ConfigError` for a model without parameters.
        """
        if not objective.params:
            raise ConfigError(
                f"The model `{type(objective.model).__name__}` has no parameters that require a gradient: "
                f"nothing can be trained.{_otherwise(objective.model)}"
            )
        if hasattr(self.rule, "hidden"):
            self.rule.hidden = objective.hidden
        self.rule.init(objective.params, objective.decay)

    def step(self, objective: Objective, batch: Batch, lr: float) -> Update:
        """Change the parameters in place, at the rate `lr`."""
        params = objective.params
        if objective.waiting:
            params = [p for place, p in enumerate(params) if place not in objective.waiting]
        look = self.memory.look
        parts = self.accumulate if look is None else look(batch, self.accumulate)
        try:
            if self.across is not None:
                loss, grads, weight = self.across(batch, params, parts)
            elif parts == 1:
                loss, weight = objective.weighed(batch)
                grads = differentiate(loss, params, sparse=self._sparse)
            else:  # of a weighted mean the dry run allows no parts
                weight = elements(batch.y)
                loss, grads = accumulate_gradient(objective, batch, params, parts, sparse=self._sparse)
        except Exception as error:
            # here nothing has changed the weights yet
            if self.memory.auto and is_out_of_memory(error):
                raise TooLarge(self.memory, objective, batch) from error
            raise
        norm, each, clipped = None, None, None
        if self.clip is not None or self.measure_norms:
            each = self.norms(grads)  # a tensor: nothing waits for it
            norm = torch.linalg.vector_norm(each)
            if self.clip is not None:
                grads = clip_gradient(grads, norm, self.clip)
                clipped = torch.linalg.vector_norm(self.norms(grads)) if self.measure_norms else None
        if objective.waiting:
            params, grads = objective.params, _spread(grads, objective.waiting)
        self.rule.update(params, grads, lr)
        return Update(loss.detach(), norm, weight, each if self.measure_norms else None, clipped)

    def state_dict(self) -> dict[str, Any]:
        """The rule's state; clipping and accumulation have none."""
        return self.rule.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a rule's state."""
        self.rule.load_state_dict(state)


def _otherwise(model: nn.Module) -> str:
    # a model of counts is fitted without gradients
    counts = callable(getattr(model, "count", None))
    return " It counts. Type optimizer=counting trainer.batch_size=null trainer.steps=1" if counts else ""


def _spread(grads: list[Tensor], waiting: Collection[int]) -> list[Tensor]:
    """The gradients at their places among all parameters, with None at those that wait."""
    left = iter(grads)
    return [None if place in waiting else next(left) for place in range(len(grads) + len(waiting))]  # type: ignore[misc]


def gradient(
    objective: Objective, batch: Batch, params: list[Tensor], *, sparse: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """The loss, detached, and its gradient by `differentiate`."""
    loss = objective(batch)
    return loss.detach(), differentiate(loss, params, sparse=sparse)


def differentiate(loss: Tensor, params: list[Tensor], *, sparse: bool = False) -> list[Tensor]:
    """The gradient of a loss.

    Each tensor has the strides of its parameter. A parameter without influence on the loss has the gradient zero. With
    `sparse`, sparse gradients are left sparse, coalesced.
    """
    # autograd.grad takes less time than backward(), which also fills p.grad; but only backward() promises
    # the parameters' strides, and the fused kernels, which read memory in order, rely on them.
    grads = torch.autograd.grad(loss, params, allow_unused=True)
    # the strides of a sparse gradient are zeros
    return [
        g if g is not None and g.stride() == p.stride() else align(g, p, sparse=sparse)
        for g, p in zip(grads, params, strict=True)
    ]


def align(grad: Tensor | None, param: Tensor, *, sparse: bool = False) -> Tensor:
    """A gradient with the strides of its parameter; zero for none."""
    if grad is None:
        return torch.zeros_like(param, requires_grad=False)
    if grad.stride() == param.stride():
        return grad
    if sparse and grad.is_sparse:
        return grad.coalesce()
    return torch.empty_like(param, requires_grad=False).copy_(grad.to_dense())


def accumulate_gradient(
    objective: Objective, batch: Batch, params: list[Tensor], parts: int, *, sparse: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """The same as `gradient`, by `parts` portions in turn."""
    portions = cut(batch, parts)
    total: Tensor | None = None
    grads: list[Tensor] = []
    for portion, weight in zip(portions, _weights(portions), strict=True):
        loss, part = gradient(objective, portion, params, sparse=sparse)
        if isinstance(weight, Tensor):
            # the mean over a portion without a target is no number
            loss, part = loss.where(weight > 0, 0.0), [_where(weight > 0, grad) for grad in part]
        # not in place: two parameters' gradients may be one tensor.
        weighted = list(torch._foreach_mul(part, weight))
        if total is None:
            total, grads = loss * weight, weighted
        else:
            total = total + loss * weight
            torch._foreach_add_(grads, weighted)
    assert total is not None  # a batch has at least one sample
    return total, grads


def cut(batch: Batch, parts: int) -> list[Batch]:
    """A batch in at most so many parts, of sizes equal to within one sample, the larger ones first."""
    size = batch.size
    parts = min(parts, size)
    cuts = [part * (size // parts) + min(part, size % parts) for part in range(parts + 1)]
    return [batch.rows(slice(*ends)) for ends in pairwise(cuts)]


def _where(counts: Tensor, grad: Tensor) -> Tensor:
    return grad if grad.is_sparse else grad.where(counts, 0.0)


def _weights(portions: list[Batch]) -> list[Any]:
    """Each portion's share of the targets that count."""
    if portions[0].y.is_floating_point():
        size = sum(portion.size for portion in portions)
        return [portion.size / size for portion in portions]
    # windows that overlap predict fewer tokens, a batch may have targets that do not count; counted on the device:
    # nothing waits for it
    counts = torch.stack([(portion.y != IGNORE_INDEX).sum() for portion in portions])
    return list((counts / counts.sum()).unbind())


def parameter_norms(tensors: list[Tensor]) -> Tensor:
    """The Euclidean norm of each tensor, [P]."""
    if any(t.is_sparse for t in tensors):
        tensors = [t.coalesce().values() if t.is_sparse else t for t in tensors]
    norms = torch._foreach_norm(tensors)
    return torch.stack([n.to(norms[0].device) for n in norms])


def clip_gradient(grads: list[Tensor], norm: Tensor, bound: float) -> list[Tensor]:
    """The gradients times min(1, bound / (norm + 1e-6))."""
    # 1e-6 as in `torch.nn.utils.clip_grad_norm_`
    factor = torch.clamp(bound / (norm + 1e-6), max=1.0)
    if all(g.device == norm.device for g in grads):
        # not in place: two parameters' gradients may be one tensor.
        return list(torch._foreach_mul(grads, factor))
    return [g * factor.to(g.device) for g in grads]
