"""A JSON file's keys as typed attributes, each spelled once.

A key that the file lacks, or has as null, reads as its default. A key that no attribute names stays as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache, cached_property
from types import MappingProxyType, UnionType
from typing import (
    Any,
    ClassVar,
    Generic,
    Literal,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
    overload,
)

from dlrun.storage.files.json_text import NOT_FINITE

T = TypeVar("T")


class Key(Generic[T]):
    """One key of a record, by its attribute's name."""

    def __init__(self, default: T) -> None:
        self._default = default

    def __set_name__(self, owner: type[Record], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, record: None, owner: type[Record]) -> Self: ...
    @overload
    def __get__(self, record: Record, owner: type[Record]) -> T: ...
    def __get__(self, record: Record | None, owner: type[Record]) -> Self | T:
        if record is None:
            return self
        value: T | None = record._values.get(self._name)
        return self._default if value is None else value

    def __set__(self, record: Record, value: T) -> None:
        record._values[self._name] = value

    def takes(self, value: Any) -> bool:
        """True for a value of the key's kind, and for null."""
        return value is None or fits(value, self._kind)

    def read(self, value: Any) -> Any:
        return read_numbers(value, self._kind) if _holds_floats(self._kind) else value

    @cached_property
    def _kind(self) -> Any:
        # `Key[int | None](None)` keeps its argument, `Key(0)` has its default
        given = getattr(self, "__orig_class__", None)
        return get_args(given)[0] if given else type(self._default)


class Record:
    """The keys of a JSON file, as attributes."""

    __slots__ = ("_values",)
    _keys: ClassVar[dict[str, Key[Any]]] = {}

    def __init_subclass__(cls) -> None:
        attributes = (pair for base in reversed(cls.__mro__) for pair in vars(base).items())
        cls._keys = {name: key for name, key in attributes if isinstance(key, Key)}

    def __init__(self, values: Mapping[str, Any] = MappingProxyType({})) -> None:
        self._values = dict(values)

    def update(self, values: Mapping[str, Any]) -> None:
        """Set values by their keys, unknown ones too."""
        self._values.update(values)

    def to_dict(self) -> dict[str, Any]:
        """The file's keys and values, unknown ones too."""
        return dict(self._values)

    def read_numbers(self) -> None:
        """Make numbers of the texts that JSON has for NaN and infinity, in keys that hold numbers."""
        for name, key in self._keys.items():
            if isinstance(value := self._values.get(name), str | dict | list):
                self._values[name] = key.read(value)

    def misfit(self) -> str | None:
        """A known key with a value of another kind, for a message; None if there is none."""
        for name, key in self._keys.items():
            if not key.takes(self._values.get(name)):
                return describe(name, self._values[name])
        return None

    def __bool__(self) -> bool:
        return bool(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values})"


def fits(value: Any, kind: Any) -> bool:
    """True if a value of a JSON file or a checkpoint, with all its items, is of a type.

    >>> fits({"val/error": 0.5}, Mapping[str, float]), fits({"val/error": "x"}, Mapping[str, float])
    (True, False)

    Whole numbers and others are not told apart. A `TypedDict` may lack keys, and have them as null.
    """
    return _test_of(kind)(value)


@cache
def _test_of(kind: Any) -> Callable[[Any], bool]:
    """The test of a value for a type, made once: there may be ten thousand summaries to read."""
    origin, arguments, typed = _form(kind)
    if origin is Any:
        return lambda value: True
    if origin in (UnionType, Union):
        options = [_test_of(each) for each in arguments]
        return lambda value: any(test(value) for test in options)
    if origin is Literal:
        return lambda value: isinstance(value, str)
    if typed:
        return _test_of_keys(_hints(origin))
    if issubclass(origin, Mapping):
        return _test_of_mapping(*map(_test_of, arguments))
    # a text is a sequence too
    if issubclass(origin, Sequence) and origin is not str:
        item = _test_of(arguments[0] if arguments else Any)
        return lambda value: isinstance(value, list | tuple) and all(map(item, value))
    if origin is int:  # older files have some with a point
        return is_finite
    if origin is float:
        return lambda value: isinstance(value, float) or is_finite(value)
    return lambda value: isinstance(value, origin)


def _test_of_keys(hints: Mapping[str, Any]) -> Callable[[Any], bool]:
    def test(value: Any) -> bool:
        # asked for anew: a `TypedDict` may have itself below it
        return isinstance(value, dict) and all(
            value.get(name) is None or _test_of(hint)(value[name]) for name, hint in hints.items()
        )

    return test


def _test_of_mapping(*tests: Callable[[Any], bool]) -> Callable[[Any], bool]:
    if not tests:
        return lambda value: isinstance(value, dict)
    key, item = tests
    return lambda value: isinstance(value, dict) and all(map(key, value)) and all(map(item, value.values()))


@cache
def _form(kind: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """A type's origin and arguments, and whether it is a `TypedDict`; found out once, for summaries are read often."""
    origin = get_origin(kind) or kind
    return origin, get_args(kind), is_typeddict(origin)


def read_numbers(value: Any, kind: Any) -> Any:
    """A value of a JSON file, with the texts for NaN and infinity as the numbers that its type has there.

    >>> read_numbers({"val/loss": "nan"}, Mapping[str, float]), read_numbers("nan", str | None)
    ({'val/loss': nan}, 'nan')
    """
    if not isinstance(value, str | dict | list):
        return value
    union, options, _ = _form(kind)
    options = options if union in (UnionType, Union) else (kind,)
    if isinstance(value, str):
        return float(value) if value in NOT_FINITE and float in options and str not in options else value
    for option in options:
        origin, arguments, typed = _form(option)
        if not isinstance(origin, type):  # the words of a `Literal`
            continue
        if isinstance(value, dict) and typed:
            return {name: read_numbers(each, _hints(origin).get(name, Any)) for name, each in value.items()}
        if isinstance(value, dict) and arguments and issubclass(origin, Mapping):
            return {name: read_numbers(each, arguments[1]) for name, each in value.items()}
        if isinstance(value, list) and arguments and issubclass(origin, Sequence):
            return [read_numbers(each, arguments[0]) for each in value]
    return value


@cache
def _holds_floats(kind: Any) -> bool:
    # a `TypedDict` may have itself below it
    origin, arguments, typed = _form(kind)
    return typed or origin is float or any(map(_holds_floats, arguments))


def misfit(values: Mapping[str, Any], kind: type) -> str | None:
    """A message for the first field that is missing, unknown or of another type; else None."""
    hints = _hints(kind)
    for field in fields(kind):
        if field.name in values and not fits(values[field.name], hints[field.name]):
            return describe(field.name, values[field.name])
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            return f"`{field.name}` is missing"
    unknown = values.keys() - hints.keys()
    return f"`{min(unknown)}` is no key of it" if unknown else None


def is_finite(value: Any) -> bool:
    """True for a number that a float can have."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # 400 digits
        return False


def describe(name: str, value: Any) -> str:
    """A key and its value, shortened."""
    return f"`{name}` is {json.dumps(value, default=str, skipkeys=True)[:60]}"


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
