"""A JSON file's keys as typed attributes, each spelled once.

A key that the file lacks, or has as null, reads as its default. A key that no attribute names stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Generic, Literal, Self, TypeVar, get_args, get_origin, is_typeddict, overload

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
        """Whether a value of a file is of the key's kind; null is."""
        return value is None or isinstance(value, self._kinds)

    @cached_property
    def _kinds(self) -> tuple[type, ...]:
        # `Key[int | None](None)` keeps its argument, `Key(0)` has its default
        given = getattr(self, "__orig_class__", None)
        return _json_kinds(get_args(given)[0] if given else type(self._default))


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

    def misfit(self) -> str | None:
        """A known key with a value of another kind, for a message; None if there is none."""
        for kind in type(self).__mro__:
            for name, key in vars(kind).items():
                if isinstance(key, Key) and not key.takes(self._values.get(name)):
                    return f"`{name}` is {json.dumps(self._values[name])[:60]}"
        return None

    def __bool__(self) -> bool:
        return bool(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values})"


def _json_kinds(annotation: Any) -> tuple[type, ...]:
    """The types that JSON gives to the values of an annotation."""
    origin = get_origin(annotation)
    if origin is UnionType:
        return tuple(kind for each in get_args(annotation) for kind in _json_kinds(each))
    if origin is Literal:
        return (str,)
    if is_typeddict(annotation) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return (dict,)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return (list, tuple)
    if annotation in (int, float):
        return (int, float)
    return () if annotation is NoneType else (origin or annotation,)
