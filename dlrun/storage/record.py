"""A JSON file's keys as typed attributes, each spelled once.

A key that the file lacks, or has as null, reads as its default. A key that no attribute names stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Generic, Self, TypeVar, overload

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

    def __bool__(self) -> bool:
        return bool(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values})"
