"""A rule for groups of parameters, each with a rate of its own: that of the step times a factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dlrun.errors import ConfigError
from dlrun.types import Rule


@dataclass(frozen=True)
class ParameterGroup:
    """The places of parameters in a model's list, and the factor of their learning rate."""

    places: Sequence[int]
    factor: float


class LayeredRule:
    """One rule for each group of parameters.

    As in the groups of a `torch.optim` class, each has its own state. A group whose gradients are None waits: it takes
    no step, no decay and no count.
    """

    def __init__(self, rules: Sequence[Rule], groups: Sequence[ParameterGroup]) -> None:
        self._rules, self._groups = rules, groups
        self.lr = rules[0].lr
        self.takes_sparse = all(getattr(rule, "takes_sparse", False) for rule in rules)
        self.dampening = getattr(rules[0], "dampening", 0.0)
        if hasattr(rules[0], "hidden"):
            self.hidden: list[bool] | None = None
        # a rule that has no tensors cannot be compiled, and so neither can its groups
        if all(callable(getattr(rule, "tensors", None)) for rule in rules):
            self.tensors = lambda: [t for rule in rules for t in rule.tensors()]  # type: ignore[attr-defined]

    def init(self, params: list[Tensor], decay: list[bool]) -> None:
        """Have each rule allocate its state."""
        for rule, group in zip(self._rules, self._groups, strict=True):
            if (hidden := getattr(self, "hidden", None)) is not None:
                rule.hidden = [hidden[i] for i in group.places]  # type: ignore[attr-defined]
            rule.init([params[i] for i in group.places], [decay[i] for i in group.places])

    def update(self, params: list[Tensor], grads: list[Tensor], lr: float) -> None:
        """Change `params` in place, each group at its share of the rate `lr`."""
        for rule, group in zip(self._rules, self._groups, strict=True):
            own = [grads[i] for i in group.places]
            if own[0] is not None:
                rule.update([params[i] for i in group.places], own, lr * group.factor)

    def state_dict(self) -> dict[str, Any]:
        """The state of each group."""
        return {"groups": [rule.state_dict() for rule in self._rules]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of the same groups."""
        if len(state["groups"]) != len(self._groups):
            raise ConfigError(
                f"The saved optimizer state has {len(state['groups'])} groups of weights, this run has "
                f"{len(self._groups)}. Resume with the finetune.lr and finetune.unfreeze that it was trained with."
            )
        for rule, own in zip(self._rules, state["groups"], strict=True):
            rule.load_state_dict(own)
