"""The weights of a model in a table, with how each of them trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from dlrun.config.allowlist import resolve
from dlrun.config.signatures import parameters
from dlrun.engine.objective import Objective
from dlrun.engine.protocols import Optimizer
from dlrun.optimizers.layered import ParameterGroup
from dlrun.runs.weights.names import names_of
from dlrun.terminal.format import counted, number, table

MISSING = "–"


def groups_of(optimizer: Optimizer) -> Sequence[ParameterGroup]:
    """The groups of weights with settings of their own; none if all train alike."""
    found: Sequence[ParameterGroup] = getattr(getattr(optimizer, "rule", None), "groups", ())
    return found


def describe_groups(groups: Sequence[ParameterGroup], base: float) -> list[str]:
    """A line for each group of `optimizer.groups`."""
    return [
        f"{', '.join(group.patterns)}: {_settings(group, base)} ({counted(len(group.places), 'weight')})"
        for group in groups
        if group.patterns
    ]


def weights_table(
    objective: Objective,
    optimizer: Optimizer,
    settings: Mapping[str, Any],
    *,
    begins: Sequence[int] = (),
    trusted: Sequence[str] = (),
) -> str:
    """The names, shapes, rates and decay of all weights; `settings` are those of the optimizer.

    Tied weights are one, with all of their names. `begins` are the steps before which weights are frozen.
    """
    place = {id(p): i for i, p in enumerate(objective.params)}
    group_at = {i: group for group in groups_of(optimizer) for i in group.places}
    acts = dict(zip(place.values(), objective.decay, strict=True))
    defaults = _defaults(settings, trusted)
    rows = [["name", "shape", "lr", "decay", "of its group"]]
    for p, names in _named(objective):
        shape = f"{tuple(p.shape)}"
        if (i := place.get(id(p))) is None:
            rows.append([" = ".join(names), shape, "frozen", MISSING, ""])
            continue
        group = group_at.get(i, ParameterGroup(()))
        own = defaults | dict(group.arguments)
        decays = own.get("weight_decay") and (acts[i] or own.get("decay_all"))
        rate = number(group.rate(optimizer.lr, optimizer.lr))
        late = f" from step {begins[i]} on" if begins and begins[i] else ""
        others = [f"{k}={v}" for k, v in group.arguments.items() if k not in ("weight_decay", "decay_all")]
        rows.append(
            [
                " = ".join(names),
                shape,
                rate + late,
                number(own["weight_decay"]) if decays else MISSING,
                " ".join([*others, *(f"[{pattern}]" for pattern in group.patterns)]),
            ]
        )
    return table(rows)


def _named(objective: Objective) -> list[tuple[nn.Parameter, list[str]]]:
    found: dict[int, tuple[nn.Parameter, list[str]]] = {}
    for prefix, module in zip(("", "loss."), objective.modules, strict=False):
        for p, names in names_of(module):
            # a weight that the loss shares with the model has the model's names
            found.setdefault(id(p), (p, [prefix + name for name in names]))
    return [*found.values()]


def _settings(group: ParameterGroup, base: float) -> str:
    rate = group.rate(base, base)
    told = [f"lr {number(rate)}"] if rate != base else []
    return ", ".join([*told, *(f"{name} {value}" for name, value in group.arguments.items())]) or "as all others"


def _defaults(settings: Mapping[str, Any], trusted: Sequence[str]) -> dict[str, Any]:
    """The arguments of the optimizer, with the defaults of its class."""
    known = parameters(resolve(str(settings["_target_"]), trusted=trusted)) or {}
    return {name: p.default for name, p in known.items() if p.default is not p.empty} | dict(settings)
