"""The rules of gradient descent for R stacked runs, each with its own rate, decay and momentum.

Weights, gradients and state are blocks [R, n] of a `Layout`; a hyperparameter is a column [R, 1]. Each row does what
`optimizers.sgd` and `optimizers.adam` do for a run alone, up to the rounding of single precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, Protocol

import torch
from torch import Tensor

from dlrun.optimizers.adam import Adam
from dlrun.optimizers.sgd import SGD
from dlrun.stacked.weights import Layout, column, keep_rows


class StackedRule(Protocol):
    """A gradient method for all runs at once."""

    def update(self, weights: Sequence[Tensor], grads: Sequence[Tensor], rate: Tensor) -> None:
        """Change `weights` in place, at the rates [R, 1]."""

    def tensors(self) -> list[Tensor]:
        """The state, changed in place by a step."""

    def state_of(self, row: int, params: Sequence[Tensor]) -> dict[str, Any]:
        """One run's state, in the format of its own rule."""

    def keep(self, rows: Tensor) -> None:
        """Keep these runs only."""


def stack_rules(
    members: Sequence[Any], weights: Sequence[Tensor], decays: Sequence[Sequence[bool]], layout: Layout
) -> StackedRule:
    """One rule for members of one class, with their states."""
    decay = decay_blocks([rule.weight_decay for rule in members], _acts(members, decays), weights[0], layout)
    if isinstance(members[0], SGD):
        return StackedSGD(members, weights[0], decay, layout)
    return StackedAdam(members, weights[0], decay, layout)


def _acts(members: Sequence[Any], decays: Sequence[Sequence[bool]]) -> list[list[bool]]:
    return [[d or rule.decay_all for d in each] for rule, each in zip(members, decays, strict=True)]


def decay_blocks(
    amounts: Sequence[float], acts: Sequence[Sequence[bool]], like: Tensor, layout: Layout
) -> list[Tensor] | None:
    """Each weight's decay, as blocks; None without any."""
    if not any(amounts):
        return None
    ones = [like.new_ones(shape) for shape in layout.shapes]
    runs = zip(amounts, acts, strict=True)
    return layout.stack([[p * (amount * on) for p, on in zip(ones, each, strict=True)] for amount, each in runs])


def _decayed(weights: Tensor, grad: Tensor, rate: Tensor, decay: Tensor | None, *, decoupled: bool) -> Tensor:
    """Apply the weight decay; returns the gradient to use."""
    if decay is None:
        return grad
    if decoupled:
        weights.mul_(1 - rate * decay)  # before the step, as torch's AdamW
        return grad
    return torch.addcmul(grad, weights, decay)  # the L2 term


class StackedSGD:
    """`optimizers.sgd.SGD` of every run."""

    def __init__(self, members: Sequence[SGD], like: Tensor, decay: list[Tensor] | None, layout: Layout) -> None:
        self._layout, self._decay = layout, decay
        self._nesterov, self._decoupled = members[0].nesterov, members[0].decoupled
        states = [rule.state_dict() for rule in members]
        self._first = states[0]["first"]  # the same for all: they stand at the same step
        self._has_velocity = [bool(rule.momentum) for rule in members]
        self._velocity: list[Tensor] | None = None
        self._momentum = self._share = None
        if any(self._has_velocity):
            zeros = [like.new_zeros(shape) for shape in layout.shapes]
            self._velocity = layout.stack([state["velocity"] or zeros for state in states])
            self._momentum = column([rule.momentum for rule in members], like)
        # without momentum there is nothing to damp
        if any(rule.momentum and rule.dampening for rule in members):
            self._share = column([1 - rule.dampening * bool(rule.momentum) for rule in members], like)

    @torch.no_grad()
    def update(self, weights: Sequence[Tensor], grads: Sequence[Tensor], rate: Tensor) -> None:
        for own, grad, decay, velocity in _blocks(weights, grads, self._decay, self._velocity):
            step = _decayed(own, grad, rate, decay, decoupled=self._decoupled)
            if velocity is not None and self._momentum is not None:
                # the first velocity is the gradient itself, undamped, as in torch
                damped = step if self._share is None or self._first else step * self._share
                velocity.mul_(self._momentum).add_(damped)
                step = torch.addcmul(step, velocity, self._momentum) if self._nesterov else velocity
            own.addcmul_(step, rate, value=-1)
        self._first = False

    @property
    def dampening(self) -> bool:
        """Does a run's first step differ from the others?"""
        return self._share is not None

    def tensors(self) -> list[Tensor]:
        return self._velocity or []

    def state_of(self, row: int, params: Sequence[Tensor]) -> dict[str, Any]:
        velocity = self._velocity if self._has_velocity[row] else None
        return {"velocity": self._layout.row(velocity, row, params) if velocity else [], "first": self._first}

    def keep(self, rows: Tensor) -> None:
        self._has_velocity = [self._has_velocity[row] for row in rows.tolist()]
        for name in ("_velocity", "_momentum", "_share", "_decay"):
            setattr(self, name, _of_rows(getattr(self, name), rows))


class StackedAdam:
    """`optimizers.adam.Adam` of every run."""

    def __init__(self, members: Sequence[Adam], like: Tensor, decay: list[Tensor] | None, layout: Layout) -> None:
        self._layout, self._decay, self._decoupled = layout, decay, members[0].decoupled
        states = [rule.state_dict() for rule in members]
        self._mean = layout.stack([state["mean"] for state in states])
        self._square = layout.stack([state["square"] for state in states])
        # a tensor, so that a recorded step counts too; 1 - β^t in double precision, as for a run alone
        wide = like.new_empty(0, dtype=torch.float32 if like.device.type == "mps" else torch.float64)
        self._steps = torch.full((), float(states[0]["steps"]), dtype=wide.dtype, device=wide.device)
        self._beta1, self._beta2 = (column([getattr(r, name) for r in members], wide) for name in ("beta1", "beta2"))
        self._weight1, self._weight2 = ((1 - beta).to(like.dtype) for beta in (self._beta1, self._beta2))
        self._keep2 = self._beta2.to(like.dtype)
        self._eps = _divisible([rule.eps for rule in members], [state["mean"] for state in states], like, layout)

    @torch.no_grad()
    def update(self, weights: Sequence[Tensor], grads: Sequence[Tensor], rate: Tensor) -> None:
        self._steps.add_(1.0)
        correction = (1 - self._beta2**self._steps).sqrt().to(rate.dtype)
        scale = (rate / (1 - self._beta1**self._steps)).to(rate.dtype)
        blocks = _blocks(weights, grads, self._decay, self._mean, self._square, self._eps)
        for own, grad, decay, mean, square, eps in blocks:
            step = _decayed(own, grad, rate, decay, decoupled=self._decoupled)
            mean.lerp_(step, self._weight1)
            square.mul_(self._keep2).addcmul_(step * self._weight2, step)
            root = square.sqrt().div_(correction).add_(eps)
            own.addcmul_(mean / root, scale, value=-1)

    def tensors(self) -> list[Tensor]:
        return [*self._mean, *self._square, self._steps]

    def state_of(self, row: int, params: Sequence[Tensor]) -> dict[str, Any]:
        mean, square = (self._layout.row(each, row, params) for each in (self._mean, self._square))
        return {"steps": int(self._steps), "mean": mean, "square": square}

    def keep(self, rows: Tensor) -> None:
        names = ("_mean", "_square", "_beta1", "_beta2", "_weight1", "_weight2", "_keep2", "_eps", "_decay")
        for name in names:
            setattr(self, name, _of_rows(getattr(self, name), rows))


def _divisible(
    amounts: Sequence[float], runs: Sequence[Sequence[Tensor]], like: Tensor, layout: Layout
) -> list[Tensor]:
    """Adam's eps for each block, with 1 in the rest of the rows of smaller runs.

    There the averages are zero, and without it 0/0 would be added to the zeros.
    """
    eps = column(amounts, like)
    inside = layout.stack([[torch.ones_like(p) for p in params] for params in runs])
    # a column is one read less in each step
    return [eps if eps.all() or block.all() else torch.where(block > 0, eps, 1.0) for block in inside]


def _blocks(*lists: Sequence[Tensor] | None) -> Iterator[tuple[Any, ...]]:
    """Zip lists of blocks, with None for a missing list."""
    # `repeat` has no end: the other lists are as long as each other, and end it
    return zip(*(repeat(None) if blocks is None else blocks for blocks in lists), strict=False)


def _of_rows(value: Any, rows: Tensor) -> Any:
    """These rows of blocks, or of a column."""
    if isinstance(value, list):
        return keep_rows(value, rows)
    return None if value is None else value.index_select(0, rows)
