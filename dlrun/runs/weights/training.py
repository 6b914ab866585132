"""The weights that train, from which step on and how fast: `finetune` and `optimizer.groups`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.config.settings import FineTune, Lora
from dlrun.engine.objective import Objective
from dlrun.engine.parameters.kinds import norms_with_statistics
from dlrun.engine.steppers import Thaw
from dlrun.errors import ConfigError
from dlrun.optimizers.layered import ParameterGroup
from dlrun.randomness import INITIALISATION, key
from dlrun.runs.weights.adapters import add_adapters
from dlrun.runs.weights.groups import WeightSettings, settings_of
from dlrun.runs.weights.names import any_matches, check_found, names_of, value_for


@dataclass(frozen=True)
class TrainedWeights:
    """What a model's weights do in training, by their `id`s; weights that are in neither train as usual."""

    factors: Mapping[int, float] = field(default_factory=dict)
    """Of the learning rate."""
    begins: Mapping[int, int] = field(default_factory=dict)
    """The steps before which they are frozen."""
    norms: Mapping[nn.Module, int | None] = field(default_factory=dict)
    """Frozen norms with statistics, until a step or for ever."""
    settings: Mapping[int, WeightSettings] = field(default_factory=dict)
    """Those of the optimizer that some have of their own."""

    def groups(self, params: Collection[Tensor]) -> list[ParameterGroup]:
        """The parameters by settings, factor and first step; empty if all train alike."""
        found: dict[str, list[int]] = {}
        made: dict[str, ParameterGroup] = {}
        for place, p in enumerate(params):
            own = self.settings.get(id(p), WeightSettings())
            group = ParameterGroup(
                found.setdefault(key := f"{self.factors.get(id(p), 1.0)} {self.begins.get(id(p), 0)} {own}", []),
                self.factors.get(id(p), 1.0) * own.factor,
                own.lr,
                own.arguments,
                own.patterns,
            )
            found[key].append(place)
            made.setdefault(key, group)
        settings = any(group.factor != 1.0 or group.lr is not None or group.arguments for group in made.values())
        return [*made.values()] if settings or any(self.begins.get(id(p), 0) for p in params) else []

    def thaw(self, objective: Objective) -> Thaw | None:
        """When frozen parts of an objective begin to train; None if none does. Norms that never do are still at once.

        Raises `ConfigError` if nothing trains in the first step.
        """
        objective.still = [norm for norm, step in self.norms.items() if step is None]
        begins = [self.begins.get(id(p), 0) for p in objective.params]
        if not any(begins):
            return None
        if min(begins) > 0:
            raise ConfigError(
                f"finetune.unfreeze: nothing trains before step {min(begins)}. Let a part train from the beginning."
            )
        return Thaw(begins, {norm: step for norm, step in self.norms.items() if step})


def freeze(
    model: nn.Module,
    settings: FineTune,
    *,
    skip: Sequence[str] = (),
    seed: int = 0,
    groups: Mapping[str | int, Mapping[str, Any]] | None = None,
    loss: nn.Module | None = None,
) -> TrainedWeights:
    """Freeze the parameters that `settings` and `groups` name, for ever or until a step; returns what the others do.

    `groups` are those of the optimizer; of a `loss` with parameters too.

    With adapters, all parameters are frozen but these, those to train whole, and those of `skip`. Raises `ConfigError`
    for a pattern that fits no name, and for values out of range.
    """
    lora = _check(settings)
    own_frozen = {id(p) for p in model.parameters() if not p.requires_grad}
    if lora.rank is not None:
        # a generator of their own: other draws are the same with adapters and without
        add_adapters(model, lora, torch.Generator().manual_seed(key(seed, INITIALISATION, 3)), skip=skip)
    frozen = [str(pattern) for pattern in settings.freeze]
    unfreeze = {str(pattern): step for pattern, step in (settings.unfreeze or {}).items()}
    factors = {str(pattern): factor for pattern, factor in (settings.lr or {}).items()}
    parameters = names_of(model)
    in_loss = [] if loss is None else [(p, [f"loss.{n}" for n in own]) for p, own in names_of(loss)]
    own_settings = settings_of([*parameters, *in_loss], groups or {})
    held = {each for each, own in own_settings.items() if own.frozen}
    for p, _ in in_loss:
        p.requires_grad_(p.requires_grad and id(p) not in held)
    # names as they are: each is a pattern that fits itself
    frozen += [name for p, own in parameters if id(p) in held for name in own]
    norms = {norm: names for norm, names in norms_with_statistics(model).items() if norm.training}
    names = [name for _, own in parameters for name in own]
    for of, patterns in (("freeze", frozen), ("unfreeze", unfreeze), ("lr", factors)):
        known = names if of == "lr" else [*names, *(name for own in norms.values() for name in own)]
        check_found(patterns, known, where=f"finetune.{of}")
    begins: dict[int, int] = {}
    for p, own in parameters:
        # a part that is frozen, and trains from a step on
        step = value_for(own, unfreeze, where="finetune.unfreeze")
        if step is not None and p.requires_grad:
            begins[id(p)] = step
        elif any_matches(frozen, own):
            p.requires_grad_(False)
    # beside adapters all else is frozen, norms without weights too
    candidates = norms if lora.rank is not None else ()
    still = dict.fromkeys(n for n in candidates if not any(p.requires_grad for p in n.parameters(recurse=False)))
    trained = {name for p, own in parameters for name in own if p.requires_grad}
    for of, patterns in (("unfreeze", unfreeze), ("lr", factors)):
        for pattern in patterns:
            if any_matches([pattern], names) and not any_matches([pattern], trained):
                raise ConfigError(f"finetune.{of}: all that fits `{pattern}` is frozen for ever. Leave it out.")
    return TrainedWeights(
        {
            id(p): factor
            for p, own in parameters
            if p.requires_grad and (factor := value_for(own, factors, where="finetune.lr")) is not None
        },
        begins,
        {**still, **_frozen_norms(norms, frozen, unfreeze, begins, own_frozen)},
        own_settings,
    )


def _frozen_norms(
    norms: Mapping[nn.Module, list[str]],
    frozen: Collection[str],
    unfreeze: Mapping[str, int],
    begins: Mapping[int, int],
    own_frozen: Collection[int],
) -> dict[nn.Module, int | None]:
    """The norms whose statistics do not move: their buffers are named, or all of their weights are.

    Weights of `own_frozen` do not count: nobody has named them.
    """
    found: dict[nn.Module, int | None] = {}
    for norm, names in norms.items():
        own = [p for p in norm.parameters(recurse=False) if id(p) not in own_frozen]
        steps = [begins.get(id(p)) if p.requires_grad else None for p in own]
        by_weights = bool(own) and all(
            step is not None or not p.requires_grad for p, step in zip(own, steps, strict=True)
        )
        step = value_for(names, unfreeze, where="finetune.unfreeze")
        if step is not None or by_weights or any_matches(frozen, names):
            thawed = [s for s in steps if s is not None]
            found[norm] = step if step is not None else min(thawed, default=None)
    return found


def _check(settings: FineTune) -> Lora:
    """Check values; returns the settings of adapters."""
    lora = Lora(**settings.lora)
    if lora.rank is None and (given := [key for key, value in settings.lora.items() if value not in (None, [])]):
        raise ConfigError(f"finetune.lora.{given[0]} is of adapters, without a rank. Type finetune.lora.rank=8")
    if lora.alpha is not None and not (isfinite(lora.alpha) and lora.alpha > 0):
        raise ConfigError(
            f"finetune.lora.alpha={lora.alpha}: expected a number above 0. Type finetune.lora.alpha={lora.rank}"
        )
    for pattern, step in (settings.unfreeze or {}).items():
        if step < 1:
            raise ConfigError(
                f"finetune.unfreeze: `{pattern}: {step}`; expected the number of steps before it trains, 1 or more."
            )
    for pattern, factor in (settings.lr or {}).items():
        if not (isfinite(factor) and factor > 0):
            raise ConfigError(
                f"finetune.lr: `{pattern}: {factor}`; expected a factor above 0. Type 'finetune.freeze=[{pattern}]' "
                f"for weights that do not train."
            )
    return lora
