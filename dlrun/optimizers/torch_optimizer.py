"""Any optimizer of `torch.optim`, or written as one, used as a rule."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlrun.errors import ConfigError
from dlrun.optimizers.layered import ParameterGroup, check_rates

ELEMENTWISE = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "ASGD", "Rprop")
"""The classes of `torch.optim` that change each number of a weight by itself."""


class TorchRule:
    """A `torch.optim.Optimizer` as a rule."""

    takes_sparse = True
    """Some of them update the rows of a sparse gradient alone; the others refuse it themselves."""

    def __init__(
        self, cls: type[torch.optim.Optimizer], arguments: dict[str, Any], groups: Sequence[ParameterGroup] = ()
    ) -> None:
        known = inspect.signature(cls).parameters
        self.cls = cls
        self.elementwise = any(cls is getattr(torch.optim, name) for name in ELEMENTWISE)
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
        self.groups = groups
        check_rates(groups, self.lr)
        self._rates: list[ParameterGroup] = []  # of each group of the optimizer
        self._optimizer: torch.optim.Optimizer | None = None  # made once the parameters are known

    def init(self, params: list[Tensor], decay: list[bool]) -> None:
        """Make the optimizer, its groups each in two: with and without decay."""
        made: list[dict[str, Any]] = []
        self._rates = []
        for group in self.groups or [ParameterGroup(range(len(params)))]:
            own = dict(group.arguments)
            all_decay = bool(own.pop("decay_all", self._decay_all)) or not self._decays
            acting = [params[i] for i in group.places if decay[i] or all_decay]
            others = [params[i] for i in group.places if not (decay[i] or all_decay)]
            parts = [{"params": acting, **own}, {"params": others, **own, "weight_decay": 0.0}]
            parts = [part for part in parts if part["params"]]
            made += parts
            self._rates += [group] * len(parts)
        try:
            self._optimizer = self.cls(made, **self._arguments)
        except Exception as error:  # so they refuse values, and parameters that they are not made for
            raise ConfigError(
                f"optimizer: {name_of(self.cls)} does not accept its arguments or the model's parameters: {error}"
            ) from error
        for group in self.groups:
            # torch keeps what it does not know, and never reads it
            if unknown := [name for name in group.arguments if name not in {*self._optimizer.defaults, "decay_all"}]:
                raise ConfigError(
                    f"optimizer.groups: `{unknown[0]}` of {name_of(self.cls)} is of all weights. Type "
                    f"optimizer.{unknown[0]}={group.arguments[unknown[0]]}"
                )

    def update(self, params: list[Tensor], grads: list[Tensor], lr: float) -> None:
        """Take one step with these gradients, at the rate `lr`."""
        optimizer = self._built()
        for group, own in zip(optimizer.param_groups, self._rates, strict=True):
            group["lr"] = own.rate(lr, self.lr)
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


def adapt(cls: type[torch.optim.Optimizer], groups: Sequence[ParameterGroup] = (), /, **arguments: Any) -> TorchRule:
    """A rule from an optimizer class, as in `torch.optim`; `groups` become its groups of parameters.

    Weight decay acts on matrices and kernels only, unless `decay_all=True` is among the arguments. Raises
    `ConfigError` for LBFGS, which needs the objective itself.
    """
    if issubclass(cls, torch.optim.LBFGS):
        raise ConfigError("torch.optim.LBFGS evaluates the loss several times a step. Type optimizer=lbfgs")
    return TorchRule(cls, arguments, groups)
