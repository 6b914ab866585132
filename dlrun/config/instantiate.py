"""Parts from their configuration, a `_target_` and its arguments."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from dlrun.config.allowlist import resolve
from dlrun.config.signatures import (
    MISSING,
    Numbers,
    check_arguments,
    is_tensor,
    matches,
    name_of,
    parameters,
)
from dlrun.config.trust import check_command
from dlrun.config.unpickling import check_unpickling
from dlrun.errors import ConfigError, DlrunError, place
from dlrun.tokenizers import by_name
from dlrun.tokenizers.description import PAIR
from dlrun.tokenizers.pair import PairTokenizer
from dlrun.types import Tokenizer

__all__ = ["check_arguments", "check_part", "make", "make_tokenizer", "matches", "partial", "resolve"]


def check_part(
    config: Mapping[str, Any],
    *,
    where: str,
    trusted: Sequence[str] = (),
    folder: Path | None = None,
    runtime: Collection[str] = (),
    positional: int = 0,
) -> Callable[..., Any]:
    """Check a part and its nested ones; returns the target.

    `where` is the key that it stands under. `runtime` and `positional` are arguments that the runner supplies, see
    `check_arguments`. A class gets no positional ones: those go to the call of its object.

    Raises `ConfigError`.
    """
    path = config.get("_target_", MISSING) if isinstance(config, Mapping) else MISSING
    if not isinstance(path, str) or path == MISSING:
        raise ConfigError(
            f"`{where}` names no class or function. Expected `{where}._target_`, the full name of one, as in"
            f" `_target_: dlrun.models.mlp.MLP`."
        )
    try:
        target = resolve(path, trusted=trusted, folder=folder)
    except ConfigError as error:
        raise type(error)(f"{where}: {error}") from error.__cause__
    given = _arguments_in(config)
    refuse_hidden_targets(given, where)
    # a class is made before it is called
    positional = 0 if isinstance(target, type) else positional
    check_arguments(target, given, where=where, runtime=runtime, positional=positional)
    check_unpickling(target, given, trusted)
    check_command(target, given, where=where)
    for key, nested in _parts_in(given, where):
        bound = _is_bound(target, key.removeprefix(f"{where}."))
        check_part(nested, where=key, trusted=trusted, folder=folder, positional=2 if bound else 0)
    return target


def make(
    config: Mapping[str, Any], *args: Any, trusted: Sequence[str] = (), folder: Path | None = None, **runtime: Any
) -> Any:
    """Call the class or function with its arguments.

    An argument of `runtime` is passed if the signature has it and the configuration leaves it out or null.

    Raises `ConfigError` for whatever goes wrong in the call.

    >>> make({"_target_": "dlrun.schedules.curves.linear", "step": 5}, steps=10)
    0.5
    """
    target = resolve(config["_target_"], trusted=trusted, folder=folder)
    known = parameters(target) or {}
    arguments = _arguments(target, config, trusted, folder)
    for name, value in runtime.items():
        if name in known and arguments.get(name) is None:
            arguments[name] = value
    try:
        made = target(*args, **arguments)
        _check_names(made)
        return made
    except DlrunError:
        raise
    except ValueError as error:  # so do constructors refuse a value
        raise ConfigError(f"{name_of(target)} does not accept its arguments: {error}{place(error)}") from error
    except Exception as error:
        raise ConfigError(f"{name_of(target)} failed: {type(error).__name__}: {error}{place(error)}") from error


def partial(
    config: Mapping[str, Any], *, trusted: Sequence[str] = (), folder: Path | None = None, **runtime: Any
) -> Callable[..., Any]:
    """A function with its arguments bound, or a callable object.

    >>> partial({"_target_": "dlrun.schedules.curves.linear", "floor": 0.2})(5, 10)
    0.6
    """
    target = resolve(config["_target_"], trusted=trusted, folder=folder)
    if isinstance(target, type):
        made: Callable[..., Any] = make(config, trusted=trusted, folder=folder, **runtime)
        if not callable(made):
            raise ConfigError(f"{name_of(target)} makes an object that cannot be called; give it a `__call__`.")
        return made
    known = parameters(target) or {}
    arguments = _arguments(target, config, trusted, folder)
    arguments |= {n: v for n, v in runtime.items() if n in known and arguments.get(n) is None}
    return functools.partial(target, **arguments) if arguments else target


def make_tokenizer(
    described: Mapping[str, Any], *, trusted: Sequence[str] = (), folder: Path | None = None
) -> Tokenizer:
    """A run's tokenizer, from the description in its folder.

    Raises `ConfigError` for a class that is not allowed, or that fails.

    >>> make_tokenizer({"kind": "byte"}).size
    256
    """
    path = described.get("class")
    if described.get("kind") == PAIR:
        both = [described.get(side) for side in ("source", "target")]
        if not all(isinstance(one, dict) and one.get("kind") != PAIR for one in both):
            raise ConfigError("The tokenizers of source and target are damaged: expected a description of each.")
        return PairTokenizer(*(make_tokenizer(one, trusted=trusted, folder=folder) for one in both))  # type: ignore[arg-type]
    if path is None:
        return by_name.load(described)
    if not isinstance(path, str):
        raise ConfigError(f"The tokenizer's `class` is {path!r}; expected the full name of a class.")
    target = resolve(path, trusted=trusted, folder=folder)
    load = getattr(target, "load", None)
    if not callable(load):
        raise ConfigError(
            f"The tokenizer {path} cannot be made again from a run's folder. Give it a class method `load(content)`"
            f" that takes the result of `content()` and returns the tokenizer."
        )
    try:
        made: Tokenizer = load(described["content"])
    except DlrunError:
        raise
    except Exception as error:
        raise ConfigError(f"{path}.load(content) failed: {type(error).__name__}: {error}{place(error)}") from error
    return made


def takes_predictions(target: Any) -> bool:
    """Does a metric take predictions and targets, as torchmetrics' and scikit-learn's do?

    Of classes those with the methods `update`, `compute` and `reset`. A part of it, `of`, says which predictions.
    """
    if isinstance(target, type):
        return all(callable(getattr(target, method, None)) for method in ("update", "compute", "reset"))
    return getattr(target, "__module__", "").startswith(("torchmetrics.", "sklearn.metrics."))


def _arguments_in(config: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in config.items() if key != "_target_"}


def refuse_hidden_targets(value: Any, where: str) -> None:
    """Raise `ConfigError` if a value is `_target_`.

    Some constructors make a mapping from a list of pairs, after the check: its target would never be looked at.
    """
    if isinstance(value, str) and value == "_target_":
        raise ConfigError(f"`{where}=_target_`: `_target_` is the key of a part, not a value. Write `_target_: NAME`.")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            refuse_hidden_targets(inner, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for position, inner in enumerate(value):
            refuse_hidden_targets(inner, f"{where}[{position}]")


def _parts_in(value: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The parts nested in a value, each with its key."""
    pairs = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    )
    for key, inner in pairs:
        name = f"{where}.{key}" if isinstance(value, Mapping) else f"{where}[{key}]"
        if isinstance(inner, Mapping) and "_target_" in inner:
            yield name, inner
        else:
            yield from _parts_in(inner, name)


def _is_bound(target: Callable[..., Any], key: str) -> bool:
    """Are the functions below this argument to get their arguments bound, and not to be called?

    A class says so by an attribute `bound`, the names of such arguments: each is a loss, a function of two arguments.
    """
    return key.split(".")[0].split("[")[0] in getattr(target, "bound", ())


def _check_names(made: Any) -> None:
    """Refuse modules and tensors under names that are no names: torch.fx writes them into code as they are."""
    for kind in ("_modules", "_parameters", "_buffers"):
        for name in getattr(made, kind, ()):
            if isinstance(name, str) and not (name.isidentifier() or name.isdigit()):
                raise ConfigError(
                    f"A {type(made).__name__} has a part called {name!r}; a name has letters, digits and `_`, as in "
                    f"`conv_1`."
                )


def _arguments(
    target: Callable[..., Any], config: Mapping[str, Any], trusted: Sequence[str], folder: Path | None
) -> dict[str, Any]:
    """The arguments, with the parts nested in them made."""
    known = parameters(target) or {}

    def made(value: Any, make_one: Callable[..., Any] = make) -> Any:
        if isinstance(value, Mapping):
            if "_target_" in value:
                return make_one(value, trusted=trusted, folder=folder)
            return {k: made(v, make_one) for k, v in value.items()}
        return [made(v, make_one) for v in value] if isinstance(value, (list, tuple)) else value

    check_unpickling(target, _arguments_in(config), trusted)
    check_command(target, _arguments_in(config), where=name_of(target))
    own = {k: v for k, v in _arguments_in(config).items() if not (isinstance(v, str) and v == MISSING)}
    given = {k: made(v, partial if _is_bound(target, k) else make) for k, v in own.items()}
    return {k: _convert(v, known[k].annotation) if k in known else v for k, v in given.items()}


def _convert(value: Any, annotation: Any) -> Any:
    """Make a YAML list a tuple, or it or a number a tensor, if so annotated."""
    options = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    others = [option for option in options if not is_tensor(option)]
    if len(others) < len(options) and matches(value, Numbers) and not any(matches(value, option) for option in others):
        import torch  # it is loaded: the annotation is of it

        return torch.tensor(value, dtype=torch.get_default_dtype())
    wants_tuple = any(o is tuple or get_origin(o) is tuple for o in options)
    return tuple(value) if wants_tuple and isinstance(value, list) else value
