"""A rule for groups of parameters, each with a rate and settings of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dlrun.errors import ConfigError
from dlrun.optimizers.parameters import is_elementwise
from dlrun.types import Rule


@dataclass(frozen=True)
class ParameterGroup:
    """The places of parameters in a model's list, and what they have of their own.

    Their rate is `lr`, or without one that of the optimizer, times `factor`; the schedule is that of all. `arguments`
    are the optimizer's that differ. `patterns` are those of their names that gave all this.
    """

    places: Sequence[int]
    factor: float = 1.0
    lr: float | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    patterns: Sequence[str] = ()

    def rate(self, lr: Any, base: float) -> Any:
        """The rate of a step whose rate is `lr`, the optimizer's own being `base`."""
        if self.lr is None:
            return lr * self.factor
        # the schedule's share first: it is 1 exactly where the rate is constant
        return lr / base * (self.lr * self.factor)


def check_rates(groups: Sequence[ParameterGroup], base: float) -> None:
    """Raise `ConfigError` for groups with a rate where the optimizer has none: the schedule multiplies all of them."""
    own = [group.lr for group in groups if group.lr is not None]
    if own and base == 0:
        raise ConfigError(
            f"optimizer.lr=0, and a group of optimizer.groups has the rate {own[0]}: groups share its schedule. Give "
            "optimizer.lr a rate, and freeze the weights that are not to train: {PATTERN: {freeze: true}}."
        )


class LayeredRule:
    """One rule for each group of parameters.

    As in the groups of a `torch.optim` class, each has its own state. A group whose gradients are None waits: it takes
    no step, no decay and no count.
    """

    def __init__(self, rules: Sequence[Rule], groups: Sequence[ParameterGroup], *, lr: float | None = None) -> None:
        self.rules, self.groups = rules, groups
        # of a rule that has all of the optimizer's arguments
        self.lr = rules[0].lr if lr is None else lr
        check_rates(groups, self.lr)
        self.takes_sparse = all(getattr(rule, "takes_sparse", False) for rule in rules)
        self.elementwise = all(map(is_elementwise, rules))
        self.dampening = max(getattr(rule, "dampening", 0.0) for rule in rules)
        if hasattr(rules[0], "hidden"):
            self.hidden: list[bool] | None = None
        # a rule that has no tensors cannot be compiled, and so neither can its groups
        if all(callable(getattr(rule, "tensors", None)) for rule in rules):
            self.tensors = lambda: [t for rule in rules for t in rule.tensors()]  # type: ignore[attr-defined]

    def init(self, params: list[Tensor], decay: list[bool]) -> None:
        """Have each rule allocate its state."""
        for rule, group in zip(self.rules, self.groups, strict=True):
            if (hidden := getattr(self, "hidden", None)) is not None:
                rule.hidden = [hidden[i] for i in group.places]  # type: ignore[attr-defined]
            rule.init([params[i] for i in group.places], [decay[i] for i in group.places])

    def update(self, params: list[Tensor], grads: list[Tensor], lr: float) -> None:
        """Change `params` in place, each group at its share of the rate `lr`."""
        for rule, group in zip(self.rules, self.groups, strict=True):
            own = [grads[i] for i in group.places]
            if own[0] is not None:
                rule.update([params[i] for i in group.places], own, group.rate(lr, self.lr))

    def state_dict(self) -> dict[str, Any]:
        """The state of each group."""
        return {"groups": [rule.state_dict() for rule in self.rules]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of the same groups."""
        if len(state["groups"]) != len(self.groups):
            raise ConfigError(
                f"The saved optimizer state has {len(state['groups'])} groups of weights, this run has "
                f"{len(self.groups)}. Resume with the optimizer.groups, finetune.lr and finetune.unfreeze that it was "
                "trained with."
            )
        for rule, own in zip(self.rules, state["groups"], strict=True):
            rule.load_state_dict(own)
