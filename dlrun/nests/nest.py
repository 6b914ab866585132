"""Nests: a tensor, or a tuple, a list or a dict of nests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Nest = Any
"""A tensor, or a tuple or dict of nests."""


def is_nest(value: object) -> bool:
    """Is it a tuple, a list or a dict?"""
    return isinstance(value, tuple | list | dict)


def map_nest(function: Callable[[Any], Any], nest: Nest) -> Nest:
    """The nest with `function` of each of its leaves.

    >>> map_nest(lambda n: n + 1, {"a": 1, "b": (2, 3)})
    {'a': 2, 'b': (3, 4)}
    """
    if not isinstance(nest, tuple | list | dict):
        return function(nest)
    if isinstance(nest, dict):
        return {name: map_nest(function, value) for name, value in nest.items()}
    mapped = [map_nest(function, value) for value in nest]
    # a NamedTuple takes its fields one by one
    return type(nest)(*mapped) if hasattr(nest, "_fields") else type(nest)(mapped)


def join_nests(function: Callable[[str, list[Any]], Any], nests: Sequence[Nest], name: str = "") -> Nest:
    """One nest of many of the same form: `function` of each leaf's place and values.

    >>> join_nests(lambda place, values: (place, sum(values)), [{"a": 1, "b": (2,)}, {"a": 3, "b": (4,)}])
    {'a': ('a', 4), 'b': (('b.0', 6),)}
    """
    first = nests[0]
    if isinstance(first, Mapping):
        return {key: join_nests(function, [nest[key] for nest in nests], _place(name, key)) for key in first}
    if isinstance(first, tuple | list):
        columns = enumerate(zip(*nests, strict=True))
        return tuple(join_nests(function, column, _place(name, number)) for number, column in columns)
    return function(name, [*nests])


def _place(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def leaves(nest: Nest) -> Iterator[Any]:
    """The leaves of a nest, in order.

    >>> list(leaves({"a": 1, "b": (2, 3)}))
    [1, 2, 3]
    """
    if not isinstance(nest, tuple | list | dict):
        yield nest
        return
    for value in nest.values() if isinstance(nest, dict) else nest:
        yield from leaves(value)


def size_of(nest: Nest) -> int:
    """The length of the first axis."""
    found: int = next(leaves(nest)).shape[0]
    return found


def named_leaves(nest: Nest, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a nest with their places.

    >>> list(named_leaves({"a": 1, "b": (2, 3)}))
    [('a', 1), ('b.0', 2), ('b.1', 3)]
    """
    if not isinstance(nest, tuple | list | dict):
        yield name, nest
        return
    for key, value in nest.items() if isinstance(nest, dict) else enumerate(nest):
        yield from named_leaves(value, _place(name, key))
