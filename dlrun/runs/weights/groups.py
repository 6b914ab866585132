"""Settings of the optimizer for some weights, by patterns of their names: `optimizer.groups`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dlrun.errors import ConfigError
from dlrun.runs.weights.names import any_matches, check_found, value_for

WHERE = "optimizer.groups"


@dataclass(frozen=True)
class WeightSettings:
    """What one weight has of its own: arguments of the optimizer, a rate or a factor of it, and whether it is frozen.

    `patterns` are those that gave it something.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    lr: float | None = None
    factor: float = 1.0
    frozen: bool = False
    patterns: tuple[str, ...] = ()


def settings_of(
    parameters: Sequence[tuple[Tensor, Collection[str]]], groups: Mapping[str | int, Mapping[str, Any]]
) -> dict[int, WeightSettings]:
    """The settings of each weight by its `id`; those that no pattern fits are left out.

    Each key is taken from the closest pattern that gives it (`names.value_for`): a bias of the head has the decay of
    `*.bias` and the rate of `head`. Raises `ConfigError` for a pattern that fits no name.
    """
    plain = {str(pattern): settings for pattern, settings in groups.items()}
    check_found(plain, [name for _, own in parameters for name in own], where=WHERE)
    # a rate and a factor of it are one key, so that the closer one wins
    by_key: dict[str, dict[str, dict[str, Any]]] = {}
    for pattern, settings in plain.items():
        for key, value in settings.items():
            by_key.setdefault("rate" if key.startswith("lr") else key, {})[pattern] = {key: value}
    found = {}
    for p, own in parameters:
        given: dict[str, Any] = {}
        for values in by_key.values():
            given |= value_for(own, values, where=WHERE) or {}
        if not given:
            continue
        patterns = tuple(each for each in plain if any_matches([each], own))
        lr, factor, frozen = given.pop("lr", None), given.pop("lr_factor", 1.0), given.pop("freeze", False)
        found[id(p)] = WeightSettings(given, lr, factor, frozen, patterns)
    return found


def check_effect(
    parameters: Sequence[tuple[Tensor, Collection[str]]],
    groups: Mapping[str | int, Mapping[str, Any]],
    decay: Mapping[int, bool],
    *,
    decay_all: bool,
) -> None:
    """Raise `ConfigError` for settings without effect: of frozen weights alone, and decay where none acts.

    `decay` has the weights that train, by `id`, true for those that decay acts on.
    """
    for pattern, settings in groups.items():
        fitting = [id(p) for p, own in parameters if any_matches([str(pattern)], own)]
        training = [each for each in fitting if each in decay]
        if not training and not settings.get("freeze"):
            raise ConfigError(f"{WHERE}: all that fits `{pattern}` is frozen. Leave it out.")
        acts = settings.get("decay_all", decay_all) or any(decay[each] for each in training)
        if settings.get("weight_decay") and not acts:
            raise ConfigError(
                f"{WHERE}: `{pattern}: {{weight_decay: {settings['weight_decay']}}}` acts on nothing: decay is of "
                f"matrices and kernels, not of biases and norms. To have it act on all that fits, type "
                f"'{WHERE}={{{pattern}:{{weight_decay:{settings['weight_decay']},decay_all:true}}}}'"
            )
