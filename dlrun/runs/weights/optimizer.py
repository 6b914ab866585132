"""The optimizer of a run, with a rule for each group of weights that has settings of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dlrun.config import instantiate
from dlrun.config.settings import Trainer
from dlrun.engine.failures.memory import Memory
from dlrun.engine.objective import Objective
from dlrun.engine.protocols import Optimizer
from dlrun.errors import ConfigError
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.layered import LayeredRule, ParameterGroup
from dlrun.optimizers.torch_optimizer import TorchRule, adapt
from dlrun.runs.weights.groups import check_effect
from dlrun.runs.weights.names import names_of
from dlrun.runs.weights.training import TrainedWeights


def make_optimizer(plain: dict[str, Any], trainer: Trainer, trained: TrainedWeights, objective: Objective) -> Optimizer:
    """Make the optimizer of a checked configuration.

    Raises `ConfigError` for settings that it cannot have, and for groups without effect.
    """
    groups = _groups(plain, trained, objective)
    settings = {name: value for name, value in plain["optimizer"].items() if name != "groups"}
    own = "groups" in plain["optimizer"]
    made = _make_rule(settings, plain["trusted"], groups if own else ())
    # a rule has `update` and gets gradients; an optimizer has `step` and gets the objective itself
    if hasattr(made, "update"):
        rule = made
        # one of torch has its own groups, if these have settings; each other one is a rule, and so a state, for each
        if groups and not (own and isinstance(made, TorchRule)):
            rules = [_make_rule({**settings, **_of_rule(group)}, plain["trusted"]) for group in groups]
            rule = LayeredRule(rules, groups, lr=made.lr)
        descent = Descent(rule, clip=trainer.clip, accumulate=trainer.accumulate)
        descent.measure_norms = trainer.log_gradients
        if trainer.micro_batch is not None:
            auto = trainer.micro_batch == "auto"
            descent.memory = Memory(None if auto else int(trainer.micro_batch), auto=auto)
        return descent
    for name, given in (
        ("trainer.clip", trainer.clip is not None),
        ("trainer.accumulate", trainer.accumulate != 1),
        ("trainer.micro_batch", trainer.micro_batch not in (None, "auto")),
        ("trainer.log_gradients", trainer.log_gradients),
        ("optimizer.groups" if own else "finetune.lr and finetune.unfreeze", groups),
    ):
        if given:
            raise ConfigError(f"{name} has no meaning for {type(made).__name__}: it takes no gradient steps.")
    optimizer: Optimizer = made
    return optimizer


def _groups(plain: dict[str, Any], trained: TrainedWeights, objective: Objective) -> list[ParameterGroup]:
    """The groups of weights with settings of their own."""
    if given := plain["optimizer"].get("groups"):
        named = [*names_of(objective.model), *((p, [f"loss.{n}" for n in own]) for p, own in _of_loss(objective))]
        decay = {id(p): acts for p, acts in zip(objective.params, objective.decay, strict=True)}
        check_effect(named, given, decay, decay_all=bool(plain["optimizer"].get("decay_all")))
    return trained.groups(objective.params)


def _of_loss(objective: Objective) -> list[tuple[nn.Parameter, list[str]]]:
    return [pair for module in objective.modules[1:] for pair in names_of(module)]


def _of_rule(group: ParameterGroup) -> dict[str, Any]:
    return {**group.arguments, **({} if group.lr is None else {"lr": group.lr})}


def _make_rule(settings: dict[str, Any], trusted: Sequence[str], groups: Sequence[ParameterGroup] = ()) -> Any:
    """A rule, or an optimizer that needs the objective itself; of a class of torch.optim with `groups`."""
    target = instantiate.resolve(settings["_target_"], trusted=trusted)
    if isinstance(target, type) and issubclass(target, torch.optim.Optimizer):
        # a class of torch.optim wants the parameters: `adapt` passes them at `init`
        return adapt(target, groups, **{k: v for k, v in settings.items() if k != "_target_"})
    made = instantiate.make(settings, trusted=trusted)
    step = "update" if hasattr(made, "update") else "step"
    missing = [name for name in ("lr", "init", step, "state_dict", "load_state_dict") if not hasattr(made, name)]
    if missing:
        raise ConfigError(
            f"optimizer: {settings['_target_']} has no `{'`, no `'.join(missing)}`. An optimizer has lr, "
            f"init, update, state_dict and load_state_dict (dlrun.types.Rule), or is a class as those of torch.optim."
        )
    return made
