"""The check of arguments against a signature. The signature is the schema: no part is registered.

Plain types are checked. Any other annotation (a tensor, a module, a protocol) accepts every value.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from dlrun.errors import ConfigError, did_you_mean

MISSING = "???"
"""OmegaConf's mark of a value that must be given."""

SETTINGS_MODULE = "dlrun.config.settings"
"""Its classes are named in messages by their key, `trainer`: nobody has chosen them."""

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    Any: "a value",
    None: "null",
    type(None): "null",
}
_READS_LIKE_ANOTHER = re.compile(r"[\d.eE+\-\[\], ]+|true|false")
_EXAMPLES: dict[Any, str] = {bool: "true", int: "1", float: "0.1", str: "text", Path: "folder/file"}
Numbers = float | list[float] | list[list[float]]  # given for a tensor
_SEQUENCES: tuple[Any, ...] = (list, tuple, Sequence, Collection, Iterable)
_MAPPINGS: tuple[Any, ...] = (dict, Mapping)


def parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """The parameters, annotations resolved; None without a signature."""
    try:
        return _parameters(target)
    except TypeError:  # it cannot be hashed
        return _parameters.__wrapped__(target)


@functools.lru_cache(maxsize=256)
def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return None
    hints = _hints(target)
    return {
        name: parameter.replace(annotation=hints(name, parameter.annotation))
        for name, parameter in signature.parameters.items()
    }


def check_arguments(
    target: Callable[..., Any],
    given: Mapping[str, Any],
    *,
    where: str,
    runtime: Collection[str] = (),
    positional: int = 0,
) -> None:
    """Check keys and values against the signature of `target`.

    `where` is the key that they stand under, such as `optimizer`. The runner supplies the first `positional`
    parameters, and those named in `runtime` if the configuration leaves them out or null.

    Raises `ConfigError` for an unknown key, a missing one, and a value of a wrong type.

    >>> def adam(lr: float = 0.1): ...
    >>> check_arguments(adam, {"lr": "abc"}, where="optimizer")
    Traceback (most recent call last):
    dlrun.errors.ConfigError: `optimizer.lr=abc` is text: expected a number. Type for example `optimizer.lr=0.1`.
    """
    known = parameters(target)
    if known is None:
        return
    names = [n for n, p in known.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    ahead = [n for n, p in known.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:positional]
    valid = [n for n in names if n not in ahead]
    prefix = f"{where}." if where else ""
    of = "" if target.__module__ == SETTINGS_MODULE else f" to {name_of(target)}"
    # a function with **kwargs takes every key
    if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        for key in given:
            if key not in valid:
                _refuse_key(prefix, key, target, [n for n in valid if n not in runtime])
    for name in valid:
        parameter = known[name]
        value = given.get(name, MISSING)
        if isinstance(value, str) and value == MISSING:
            if parameter.default is parameter.empty and name not in runtime:
                raise ConfigError(
                    f"`{prefix}{name}` must be given{of}: expected {in_words(parameter.annotation)}."
                    f" Type for example `{prefix}{name}={example(parameter)}`."
                )
        elif not (value is None and name in runtime) and not _is_default(value, parameter.default):
            _check_type(f"{prefix}{name}", value, parameter)


def is_tensor(annotation: Any) -> bool:
    return f"{getattr(annotation, '__module__', '')}.{getattr(annotation, '__name__', '')}" == "torch.Tensor"


def name_of(target: Callable[..., Any]) -> str:
    """The full name of a class or function."""
    inner = getattr(target, "func", target)
    return f"{inner.__module__}.{getattr(inner, '__qualname__', type(inner).__qualname__)}"


def matches(value: Any, annotation: Any) -> bool:
    """A value is of the annotated type.

    An integer is a float too, and a list a tuple.

    >>> matches(1, float), matches(True, int), matches([1, 2], tuple[int, ...]), matches(None, int | None)
    (True, False, True, True)
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(matches(value, a) for a in args)
    if origin is Literal:
        return any(value == a and type(value) is type(a) for a in args)
    if origin is typing.Annotated:
        return matches(value, args[0])
    if annotation in _SEQUENCES or origin in _SEQUENCES:
        return isinstance(value, (list, tuple)) and _all_match(value, origin, args)
    if annotation in _MAPPINGS or origin in _MAPPINGS:
        return isinstance(value, Mapping) and (
            not args or all(matches(k, args[0]) and matches(v, args[1]) for k, v in value.items())
        )
    return _matches_plain(value, annotation)


def in_words(annotation: Any) -> str:
    """The annotation in words.

    >>> in_words(float | None), in_words(list[int]), in_words(str | int | float)
    ('a number or null', 'a list of whole numbers', 'text or a number')
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        words = [in_words(a) for a in args if not (a is int and float in args)]
        return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(f"`{_as_typed(a)}`" for a in args)
    if annotation in _SEQUENCES or origin in _SEQUENCES:
        return _list_in_words(origin, args)
    if annotation in _MAPPINGS or origin in _MAPPINGS:
        return f"a mapping {{key: {in_words(args[1]) if len(args) > 1 else 'a value'}}}"
    if is_tensor(annotation):
        return "a list of numbers"
    return _WORDS.get(annotation) or (annotation.__name__ if isinstance(annotation, type) else "a value")


def example(parameter: inspect.Parameter) -> str:
    """A value to type for a parameter, perhaps its default."""
    # the default of a dataclass's list or mapping is a factory, which the signature does not show
    known = parameter.default is not parameter.empty and repr(parameter.default) != "<factory>"
    if known and parameter.default is not None:
        # whoever gives a switch wants the other position
        return _as_typed(not parameter.default if isinstance(parameter.default, bool) else parameter.default)
    return _example_of(parameter.annotation)


def _matches_plain(value: Any, annotation: Any) -> bool:
    if annotation in (None, type(None)):
        return value is None
    if annotation is float:  # True is an int to Python, and 1 no float
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (bool, str):
        return isinstance(value, annotation)
    if annotation is Path:
        return isinstance(value, (str, Path))
    # a nested part may make a tensor
    return not is_tensor(annotation) or isinstance(value, Mapping) or matches(value, Numbers)


def _all_match(values: Sequence[Any], origin: Any, args: tuple[Any, ...]) -> bool:
    if origin is tuple and args and args[-1] is not Ellipsis:
        return len(values) == len(args) and all(map(matches, values, args))
    return not args or all(matches(v, args[0]) for v in values)


def _is_default(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and bool(value == default))


def _refuse_key(prefix: str, key: str, target: Callable[..., Any], valid: list[str]) -> None:
    settings = target.__module__ == SETTINGS_MODULE
    owner, noun = (prefix[:-1], "key") if settings else (name_of(target), "argument")
    close = re.sub(r"`(\w+)`", rf"`{prefix}\1`", did_you_mean(key, valid))
    raise ConfigError(
        f"`{prefix}{key}`: {owner} has no {noun} `{key}`.{close}\nIts {noun}s are: {', '.join(valid) or 'none'}."
    )


def _check_type(key: str, value: Any, parameter: inspect.Parameter) -> None:
    if matches(value, parameter.annotation):
        return
    options = [a for a in _literals(parameter.annotation) if isinstance(a, str)]
    hint = did_you_mean(value, options) if isinstance(value, str) else ""
    kind = "" if options else f" is {_kind(value)}"  # among literals the type is not the mistake
    one = matches([value], parameter.annotation)  # where a list is expected
    typed = f"{key}={f'[{_as_typed(value)}]' if one else example(parameter)}"
    typed = f"'{typed}'" if "{" in typed else typed  # a shell makes two words of {a,b}, and of a blank
    if isinstance(value, str) and not options and _READS_LIKE_ANOTHER.fullmatch(value):
        # the value of an environment variable is text, whatever it reads like
        typed = f"{key}=${{oc.decode:${{oc.env:NAME}}}}` for the value of an environment variable, or `{key}={value}"
    raise ConfigError(
        f"`{key}={_as_typed(value)}`{kind}: expected {in_words(parameter.annotation)}.{hint}"
        f" Type for example `{typed}`."
    )


def _literals(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for a in get_args(annotation) for value in _literals(a)]


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    return "no value" if value is None else _WORDS.get(type(value), type(value).__name__)


def _as_typed(value: Any) -> str:
    """A value as one types it on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_as_typed, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}:{_as_typed(v)}" for k, v in value.items()) + "}"
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _example_of(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return _as_typed(args[0])
    if origin in (Union, types.UnionType):
        return _example_of(next(a for a in args if a is not type(None)))
    if annotation in _SEQUENCES or origin in _SEQUENCES:
        inner = [a for a in args if a is not Ellipsis] or [int]
        if len(inner) == 1 and get_origin(inner[0]) is Literal:
            return f"[{_example_of(inner[0])}]"  # a choice twice would be odd
        return f"[{','.join(_example_of(a) for a in (inner if len(inner) > 1 else inner * 2))}]"
    if annotation in _MAPPINGS or origin in _MAPPINGS:
        return f"{{key: {_example_of(args[1]) if len(args) > 1 else 'VALUE'}}}"
    return "[1,2]" if is_tensor(annotation) else _EXAMPLES.get(annotation, "VALUE")


def _list_in_words(origin: Any, args: tuple[Any, ...]) -> str:
    if origin is tuple and args and args[-1] is not Ellipsis:
        return f"a list of {len(args)} ({', '.join(map(in_words, args))})"
    word = in_words(args[0]) if args else ""
    if word in ("a number", "a whole number"):
        return f"a list of {word.removeprefix('a ')}s"
    return f"a list, each {word}" if args and word != "a value" else "a list"


def _hints(target: Callable[..., Any]) -> Callable[[str, Any], Any]:
    """A resolver of single annotations in the target's module."""
    function: Any = inspect.unwrap(target)
    if isinstance(function, type):  # names resolve where its constructor is written; a dataclass's is generated
        owner: Any = function.__init__ if "__init__" in _defined(function) else function.__new__  # type: ignore[misc]
        function = function if is_dataclass(function) else inspect.unwrap(owner)
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    names = getattr(function, "__globals__", None) or (vars(module) if module else {})

    def resolve(name: str, annotation: Any) -> Any:
        if annotation is inspect.Parameter.empty:
            return Any
        try:
            holder: Any = types.SimpleNamespace(__annotations__={name: annotation})
            return typing.get_type_hints(holder, globalns=dict(names))[name]
        except Exception:  # a name that only a type checker imports, or newer syntax
            return Any

    return resolve


def _defined(cls: type) -> set[str]:
    return {name for base in cls.__mro__[:-1] for name in vars(base)}
