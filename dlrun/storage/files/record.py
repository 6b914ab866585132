"""A JSON file's keys as typed attributes, each spelled once.

A key that the file lacks, or has as null, reads as its default. A key that no attribute names stays as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache, cached_property
from types import MappingProxyType, UnionType
from typing import (
    Any,
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
        return read_numbers(value, self._kind)

    @cached_property
    def _kind(self) -> Any:
        # `Key[int | None](None)` keeps its argument, `Key(0)` has its default
        given = getattr(self, "__orig_class__", None)
        return get_args(given)[0] if given else type(self._default)


class Record:
    """The keys of a JSON file, as attributes."""

    __slots__ = ("_values",)

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
        for kind in type(self).__mro__:
            for name, key in vars(kind).items():
                if isinstance(key, Key) and (value := self._values.get(name)) is not None:
                    self._values[name] = key.read(value)

    def misfit(self) -> str | None:
        """A known key with a value of another kind, for a message; None if there is none."""
        for kind in type(self).__mro__:
            for name, key in vars(kind).items():
                if isinstance(key, Key) and not key.takes(self._values.get(name)):
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
    origin, arguments, typed = _form(kind)
    if origin is Any:
        return True
    if origin in (UnionType, Union):
        return any(fits(value, each) for each in arguments)
    if origin is Literal:
        return isinstance(value, str)
    if typed:
        return isinstance(value, dict) and all(
            value.get(name) is None or fits(value[name], hint) for name, hint in _hints(origin).items()
        )
    if issubclass(origin, Mapping):
        if not isinstance(value, dict) or not arguments:
            return isinstance(value, dict)
        return all(fits(name, arguments[0]) and fits(each, arguments[1]) for name, each in value.items())
    # a text is a sequence too
    if issubclass(origin, Sequence) and origin is not str:
        return isinstance(value, list | tuple) and all(fits(each, item) for each in value for item in arguments[:1])
    if origin is int:  # older files have some with a point
        return is_finite(value)
    return isinstance(value, float) or is_finite(value) if origin is float else isinstance(value, origin)


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
        if isinstance(value, dict) and typed:
            return {name: read_numbers(each, _hints(origin).get(name, Any)) for name, each in value.items()}
        if isinstance(value, dict) and arguments and issubclass(origin, Mapping):
            return {name: read_numbers(each, arguments[1]) for name, each in value.items()}
        if isinstance(value, list) and arguments and issubclass(origin, Sequence):
            return [read_numbers(each, arguments[0]) for each in value]
    return value


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
