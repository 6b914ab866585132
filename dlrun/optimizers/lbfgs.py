"""The limited-memory quasi-Newton method of Liu and Nocedal (1989), as `torch.optim.LBFGS` has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.optimizers.parameters import check_rate
from dlrun.types import Batch, Update

__all__ = ["LBFGS"]


@dataclass
class LBFGS:
    """L-BFGS, up to `max_iter` iterations a step.

    The curvature is learned from the last `history_size` changes of the gradient, so the batches of successive steps
    are the same: `trainer.batch_size=null`, and no augmentation; others are refused. With `line_search: strong_wolfe`
    `lr` is the first trial of each search, without one the step length. The search reads the loss on the host: such a
    step cannot be a CUDA graph.
    """

    # torch's defaults, but for the line search, which it leaves out
    lr: float = 1.0
    history_size: int = 100
    max_iter: int = 20
    line_search: Literal["strong_wolfe"] | None = "strong_wolfe"
    tolerance_grad: float = 1e-7
    tolerance_change: float = 1e-9
    whole_split: ClassVar[bool] = True
    _optimizer: torch.optim.LBFGS | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise `ConfigError` for values outside their ranges."""
        check_rate("lr", self.lr)
        if self.line_search not in (None, "strong_wolfe"):
            raise ConfigError(
                f"optimizer.line_search is `{self.line_search}`; valid are `strong_wolfe` and null. "
                "Type optimizer.line_search=strong_wolfe"
            )

    def init(self, objective: Objective) -> None:
        """Make torch's optimizer for the objective's parameters."""
        self._optimizer = torch.optim.LBFGS(
            objective.params,
            lr=self.lr,
            max_iter=self.max_iter,
            history_size=self.history_size,
            line_search_fn=self.line_search,
            tolerance_grad=self.tolerance_grad,
            tolerance_change=self.tolerance_change,
        )

    def step(self, objective: Objective, batch: Batch, lr: float) -> Update:
        """Take up to `max_iter` iterations; report the loss before them."""
        if lr == 0:  # the end of a schedule: torch's line search divides by the rate
            with torch.enable_grad():
                return Update(objective(batch).detach(), None)
        optimizer = self._built()
        optimizer.param_groups[0]["lr"] = lr

        def closure() -> Tensor:
            with torch.enable_grad():
                loss = objective(batch)
                grads = torch.autograd.grad(loss, objective.params, materialize_grads=True)
            for p, g in zip(objective.params, grads, strict=True):
                # torch flattens them with view(), which fails on channels_last and on sparse gradients
                p.grad = g.to_dense().contiguous()
            return loss.detach()

        loss: Tensor = optimizer.step(closure)  # type: ignore[no-untyped-call]
        optimizer.zero_grad(set_to_none=True)
        return Update(loss, None)

    @property
    def passes(self) -> int:
        """The evaluations of loss and gradient so far."""
        states = self._built().state.values()
        return sum(int(state.get("func_evals", 0)) for state in states)

    def state_dict(self) -> dict[str, Any]:
        """The history of directions, the last gradient and the counts."""
        return self._built().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a history of the same model."""
        try:
            self._built().load_state_dict(state)
        except (KeyError, ValueError) as error:
            raise ConfigError(f"The saved optimizer state is not one of LBFGS: {error}") from error

    def _built(self) -> torch.optim.LBFGS:
        assert self._optimizer is not None, "init() comes first"
        return self._optimizer
