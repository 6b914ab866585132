"""The weights of `init_from` against a model: what fits, what does not, and what is skipped."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from dlrun.errors import ConfigError, UserError
from dlrun.runs.weights.names import any_matches, check_found, tied
from dlrun.terminal.format import counted, table

MOST = 20
"""Names of a table of what does not fit."""


def fit(model: nn.Module, values: Mapping[str, Any], skip: Sequence[str], *, where: str) -> None:
    """Load `values` into `model`, but for the names that fit a pattern of `skip`, here and there.

    Raises `ConfigError` for a pattern that fits no name, and `UserError` with a table of what does not fit.
    """
    own = model.state_dict()
    check_found(skip, [*dict.fromkeys([*own, *values])], where="init_from_skip")
    _check_tied(model, skip)
    skipped = {name for name in {*own, *values} if any_matches(skip, [name])}
    taken = {name: value for name, value in values.items() if name not in skipped}
    # torch would take the numbers of quantised weights, and of complex ones the real part
    if any(name in own and _other_kind(own[name], value) for name, value in taken.items()):
        raise UserError(_describe(own, values, skipped, where=where))
    _check_finite(model, taken, where=where)
    try:
        # torch decides: a model of counts has buffers that take the sizes of what is loaded
        model.load_state_dict({**taken, **{name: own[name] for name in own if name in skipped}})
    except (RuntimeError, AttributeError, TypeError) as error:  # the latter of values that are no tensors
        raise UserError(_describe(own, values, skipped, where=where) or _unknown(where, error)) from None


def _check_finite(model: nn.Module, taken: Mapping[str, Any], *, where: str) -> None:
    """Refuse weights of a training that has diverged; a buffer may hold infinity, such as a mask."""
    for name, _ in model.named_parameters(remove_duplicate=False):
        value = taken.get(name)
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(value.float().isfinite().all()):
            raise UserError(
                f"{where}: {name} has numbers that are NaN or infinite, so its training had diverged. Begin with other "
                f"weights, or leave these out: {_words([name])}"
            )


def _check_tied(model: nn.Module, skip: Sequence[str]) -> None:
    """Raise `ConfigError` if a tensor is skipped by one of its names and taken by another."""
    for names in tied(model):
        out = [name for name in names if any_matches(skip, [name])]
        if out and len(out) < len(names):
            taken = [name for name in names if name not in out]
            raise ConfigError(
                f"init_from_skip leaves out {', '.join(out)}, and {', '.join(taken)} is the same tensor. Skip all of "
                f"its names or none: {_words([*skip, *taken])}"
            )


def _describe(own: Mapping[str, Any], values: Mapping[str, Any], skipped: Collection[str], *, where: str) -> str:
    """What does not fit, as a table, and what to type; empty if the shapes say nothing."""
    names = [name for name in dict.fromkeys([*own, *values]) if name not in skipped]
    misfits = [name for name in names if _shape(own, name) != _shape(values, name) or _kinds_differ(own, values, name)]
    if not misfits:
        return ""
    shown = misfits if len(misfits) <= MOST + 1 else misfits[:MOST]
    kinds = [n for n in shown if _kinds_differ(own, values, n)]
    here, there = ({n: f" {str(state[n].dtype).removeprefix('torch.')}" for n in kinds} for state in (own, values))
    rows = [
        ["name", "shape here", "shape there"],
        *([n, _shape(own, n) + here.get(n, ""), _shape(values, n) + there.get(n, "")] for n in shown),
    ]
    more = f"\n  … and {len(misfits) - len(shown)} more" if len(shown) < len(misfits) else ""
    fits = len([name for name in own if name in values and name not in skipped]) - len(
        [name for name in misfits if name in own and name in values]
    )
    return (
        f"The weights of {where} are of another model than this one; {counted(fits, 'name')} of {len(own)} fit, these "
        f"do not:\n{table(rows)}{more}\n{_advice(own, values, misfits, fits)}"
    )


def _advice(own: Mapping[str, Any], values: Mapping[str, Any], misfits: Sequence[str], fits: int) -> str:
    if fits:
        return (
            f"To leave them out type {_words(_modules(misfits, {*own, *values}))}. What is skipped begins here as the "
            f"seed draws it."
        )
    prefixes = {name.partition(".")[0] for name in values}
    inner = {name.partition(".")[2] for name in values}
    if len(prefixes) == 1 and inner & {*own}:
        outer = prefixes.pop()
        return (
            f"The names there all begin with `{outer}.`: they are of a module that holds the model. Save the model's "
            f"own: torch.save({outer}.state_dict(), …)."
        )
    return "Choose the model that they were trained with: model=…"


def _modules(misfits: Sequence[str], names: Collection[str]) -> list[str]:
    """The misfits by the largest modules of which nothing fits.

    >>> _modules(["head.weight", "head.bias", "fc.bias"], ["head.weight", "head.bias", "fc.bias", "fc.weight"])
    ['head', 'fc.bias']
    """
    fitting = {*names} - {*misfits}
    found: dict[str, None] = {}
    for name in misfits:
        parts = name.split(".")
        heads = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
        found[next(h for h in heads if h == name or not any(f.startswith(f"{h}.") for f in fitting))] = None
    return [*found]


def _words(patterns: Sequence[str]) -> str:
    return f"'init_from_skip=[{','.join(patterns)}]'"


def _unknown(where: str, error: Exception) -> str:
    return f"The weights of {where} are of another model than this one:\n  {error}"


def _kinds_differ(own: Mapping[str, Any], values: Mapping[str, Any], name: str) -> bool:
    return name in own and name in values and _other_kind(own[name], values[name])


def _other_kind(own: Any, value: Any) -> bool:
    """Would a value lose its meaning in the type of one's own: a whole number as a weight, a complex one as a real?"""
    if not isinstance(own, Tensor) or not isinstance(value, Tensor):
        return False
    if value.is_complex():
        return not own.is_complex()
    return not value.is_floating_point() and (own.is_floating_point() or own.is_complex())


def _shape(state: Mapping[str, Any], name: str) -> str:
    if name not in state:
        return "missing"
    value = state[name]
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"
