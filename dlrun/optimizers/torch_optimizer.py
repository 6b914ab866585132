"""Any optimizer of `torch.optim`, or written as one, used as a rule."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from dlrun.errors import ConfigError


class TorchRule:
    """A `torch.optim.Optimizer` as a rule."""

    takes_sparse = True
    """Some of them update the rows of a sparse gradient alone; the others refuse it themselves."""

    def __init__(self, cls: type[torch.optim.Optimizer], arguments: dict[str, Any]) -> None:
        known = inspect.signature(cls).parameters
        self.cls = cls
        self._arguments = dict(arguments)
        self._decay_all = bool(self._arguments.pop("decay_all", False))
        self._decays = "weight_decay" in known  # not every optimizer has it
        given = self._arguments.get("lr", known["lr"].default if "lr" in known else 1.0)
        if given is inspect.Parameter.empty:
            raise ConfigError(f"{name_of(cls)} needs a learning rate. Type for example optimizer.lr=0.1")
        try:
            self.lr = float(given)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"optimizer.lr={given!r} is no number. Type for example optimizer.lr=0.1") from error
        self._optimizer: torch.optim.Optimizer | None = None  # made once the parameters are known

    def init(self, params: list[Tensor], decay: list[bool]) -> None:
        """Make the optimizer, in groups with and without decay."""
        acts = [d or self._decay_all or not self._decays for d in decay]
        groups: list[dict[str, Any]] = [{"params": [p for p, a in zip(params, acts, strict=True) if a]}]
        groups.append({"params": [p for p, a in zip(params, acts, strict=True) if not a], "weight_decay": 0.0})
        try:
            self._optimizer = self.cls([g for g in groups if g["params"]], **self._arguments)
        except Exception as error:  # so they refuse values, and parameters that they are not made for
            raise ConfigError(
                f"optimizer: {name_of(self.cls)} does not accept its arguments or the model's parameters: {error}"
            ) from error

    def update(self, params: list[Tensor], grads: list[Tensor], lr: float) -> None:
        """Take one step with these gradients, at the rate `lr`."""
        optimizer = self._built()
        for group in optimizer.param_groups:
            group["lr"] = lr
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # frees the gradients: the next step makes others

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's own state."""
        return self._built().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of the same optimizer."""
        try:
            self._built().load_state_dict(state)
        except (KeyError, ValueError) as error:
            raise ConfigError(f"The saved state is not one of {name_of(self.cls)}: {error}") from error

    def _built(self) -> torch.optim.Optimizer:
        assert self._optimizer is not None, "init() comes first"
        return self._optimizer


def name_of(cls: type[torch.optim.Optimizer]) -> str:
    """The name that a configuration has for an optimizer.

    >>> name_of(torch.optim.RAdam)
    'torch.optim.RAdam'
    """
    known = getattr(torch.optim, cls.__name__, None) is cls
    return f"{'torch.optim' if known else cls.__module__}.{cls.__qualname__}"


def adapt(cls: type[torch.optim.Optimizer], /, **arguments: Any) -> TorchRule:
    """A rule from an optimizer class, as in `torch.optim`.

    Weight decay acts on matrices and kernels only, unless `decay_all=True` is among the arguments. Raises
    `ConfigError` for LBFGS, which needs the objective itself.
    """
    if issubclass(cls, torch.optim.LBFGS):
        raise ConfigError("torch.optim.LBFGS evaluates the loss several times a step. Type optimizer=lbfgs")
    return TorchRule(cls, arguments)
