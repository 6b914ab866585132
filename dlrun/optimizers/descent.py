"""One step of gradient descent: a batch's gradient, accumulated and clipped, given to a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError
from dlrun.types import IGNORE_INDEX, Batch, Rule, Update

if TYPE_CHECKING:
    from dlrun.engine.objective import Objective


class Descent:
    """An optimizer that differentiates the objective on a batch and lets a `rule` do the rest.

    `accumulate` cuts the batch into that many parts, of sizes equal to within one sample, whose
    losses are weighted by their sizes, of text by the tokens that they predict: the same gradient
    with less memory. `clip` bounds the
    Euclidean norm of the whole gradient. `measure_norm`, which may be set at any step, has the norm
    reported where nothing is clipped; it is the norm before clipping. A rule that treats the matrices
    within a network otherwise than the rest, as Muon does, has an attribute `hidden`, which is set
    before `rule.init`: for each parameter, whether it is one (`Objective.hidden`).
    """

    def __init__(self, rule: Rule, *, clip: float | None = None, accumulate: int = 1) -> None:
        if clip is not None and not clip > 0:
            raise ConfigError(f"trainer.clip is {clip}; expected is a norm above 0, or null. Type trainer.clip=1.0")
        if accumulate < 1:
            raise ConfigError(f"trainer.accumulate is {accumulate}; expected is a whole number of at least 1.")
        self.rule = rule
        self.clip = clip
        self.accumulate = accumulate
        self.measure_norm = False

    @property
    def lr(self) -> float:
        """The learning rate that the schedule multiplies."""
        return self.rule.lr

    def init(self, objective: Objective) -> None:
        """Allocate the rule's state; raise ConfigError for a model without parameters."""
        if not objective.params:
            raise ConfigError(
                f"The model `{type(objective.model).__name__}` has no parameters that require a gradient: "
                f"nothing can be trained.{_otherwise(objective.model)}"
            )
        if hasattr(self.rule, "hidden"):
            self.rule.hidden = objective.hidden
        self.rule.init(objective.params, objective.decay)

    def step(self, objective: Objective, batch: Batch, lr: float) -> Update:
        """Change the parameters in place by one step of the rule, at the rate `lr`."""
        params = objective.params
        if self.accumulate == 1:
            loss, grads = gradient(objective, batch, params)
        else:
            loss, grads = accumulated(objective, batch, params, self.accumulate)
        norm = None
        if self.clip is not None or self.measure_norm:
            norm = global_norm(grads)
            if self.clip is not None:
                grads = clipped(grads, norm, self.clip)
        self.rule.update(params, grads, lr)
        return Update(loss, norm)

    def state_dict(self) -> dict[str, Any]:
        """Return the rule's state; clipping and accumulation have none."""
        return self.rule.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a rule's state."""
        self.rule.load_state_dict(state)


def _otherwise(model: nn.Module) -> str:
    """Return what to type for a model that is fitted without gradients."""
    counts = callable(getattr(model, "count", None))
    return " It counts. Type optimizer=counting trainer.batch_size=null trainer.steps=1" if counts else ""


def gradient(objective: Objective, batch: Batch, params: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the loss, detached, and its gradient, each tensor laid out in memory as its parameter.

    A parameter that the loss does not depend on has the gradient zero.
    """
    loss = objective(batch)
    # autograd.grad takes less time than backward(), which also fills p.grad; but only backward() promises
    # the parameters' strides, and the fused kernels, which read memory in order, rely on them.
    grads = torch.autograd.grad(loss, params, allow_unused=True)
    aligned = [
        g if g is not None and g.stride() == p.stride() else _align(g, p) for g, p in zip(grads, params, strict=True)
    ]
    return loss.detach(), aligned


def _align(grad: Tensor | None, param: Tensor) -> Tensor:
    if grad is None:
        return torch.zeros_like(param, requires_grad=False)
    return torch.empty_like(param, requires_grad=False).copy_(grad)


def accumulated(objective: Objective, batch: Batch, params: list[Tensor], parts: int) -> tuple[Tensor, list[Tensor]]:
    """Return loss and gradient of the batch's mean, computed from `parts` portions one after the other."""
    parts = min(parts, len(batch.x))
    portions = [Batch(*tensors) for tensors in zip(*(torch.tensor_split(t, parts) for t in batch), strict=True)]
    total: Tensor | None = None
    grads: list[Tensor] = []
    for portion, weight in zip(portions, _weights(portions), strict=True):
        loss, part = gradient(objective, portion, params)
        # Not in place: two parameters' gradients may be one tensor.
        weighted = list(torch._foreach_mul(part, weight))
        if total is None:
            total, grads = loss * weight, weighted
        else:
            total = total + loss * weight
            torch._foreach_add_(grads, weighted)
    assert total is not None  # a batch has at least one sample
    return total, grads


def _weights(portions: list[Batch]) -> list[Any]:
    """Return each portion's part of what the losses are means over: samples, of text the tokens that are predicted.

    What is counted stays on the device. (A text's last window, or windows that overlap, predict fewer.)
    """
    if portions[0].y.ndim < 2 or portions[0].y.is_floating_point():
        size = sum(len(portion.x) for portion in portions)
        return [len(portion.x) / size for portion in portions]
    counts = torch.stack([(portion.y != IGNORE_INDEX).sum() for portion in portions])
    return list((counts / counts.sum()).unbind())


def global_norm(tensors: list[Tensor]) -> Tensor:
    """Return the Euclidean norm of all the tensors together, a scalar that stays on the device.

    >>> global_norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
    tensor(5.)
    """
    norms = torch._foreach_norm(tensors)
    norm: Tensor = torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]))
    return norm


def clipped(grads: list[Tensor], norm: Tensor, bound: float) -> list[Tensor]:
    """Return the gradients times min(1, bound / (norm + 1e-6)), as `torch.nn.utils.clip_grad_norm_` does."""
    factor = torch.clamp(bound / (norm + 1e-6), max=1.0)
    if all(g.device == norm.device for g in grads):
        # Not in place: two parameters' gradients may be one tensor.
        return list(torch._foreach_mul(grads, factor))
    return [g * factor.to(g.device) for g in grads]
