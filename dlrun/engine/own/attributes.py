"""The attributes of a run's parts in which state may hide: of objects, functions, classes, and a user's own modules."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

from dlrun.engine.own.encoding import DEPTH, PLAIN
from dlrun.engine.own.modules import variables

PACKAGE = str(Path(__file__).parents[2])
LIBRARIES = (*(f"{prefix}/lib" for prefix in dict.fromkeys((sys.prefix, sys.base_prefix))), PACKAGE)
"""Code below these folders is nobody's own."""

OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""Attributes that torch gives any module."""

KNOWN = ("torch", "numpy", "dlrun", "collections", "functools", "itertools", "random", "builtins")
"""Packages whose objects are looked into by their values, or not at all."""

MISSING = object()


@dataclass(frozen=True)
class Attribute:
    """One attribute of one owner."""

    name: str
    """For a person: `loss.calls`."""
    read: Callable[[], Any]
    """Its value; `MISSING` if it is gone."""
    write: Callable[[Any], None]
    """Sets it; `MISSING` takes it away."""


def attributes(parts: Mapping[str, Any]) -> dict[str, Attribute]:
    """The attributes of all parts by name, without what their state dicts hold."""
    found: dict[str, Attribute] = {}
    for name, owner in owners(parts):
        for attribute in _attributes_of(name, owner):
            found.setdefault(attribute.name, attribute)
    return found


def is_own(thing: Any) -> bool:
    """Is a class, function or module a user's own, and no library's?"""
    module = thing if isinstance(thing, ModuleType) else sys.modules.get(getattr(thing, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    installed = file is None or "site-packages" in file or "dist-packages" in file
    return file is not None and not installed and not any(file.startswith(f"{folder}/") for folder in LIBRARIES)


def keeps_state(part: Any) -> bool:
    """Does an object save and load its state itself?"""
    return all(callable(getattr(part, name, None)) for name in ("state_dict", "load_state_dict"))


def owners(parts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The objects that attributes are looked for in, by name: the parts, and what is in them or behind them."""
    seen: set[int] = set()
    waiting = list(parts.items())
    while waiting:
        name, owner = waiting.pop(0)
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        yield name, owner
        kind = owner if isinstance(owner, FunctionType) else type(owner)
        if is_own(kind):
            module = sys.modules[kind.__module__]
            waiting += [(kind.__module__, module)] + ([] if kind is owner else [(kind.__qualname__, kind)])
        waiting += _inner(name, owner)


def _inner(name: str, owner: Any) -> Iterator[tuple[str, Any]]:
    """The owners within an owner."""
    if isinstance(owner, partial):
        yield name, owner.func
        held = {**owner.keywords, **{str(i): value for i, value in enumerate(owner.args)}}
    elif isinstance(owner, MethodType):
        yield name, owner.__self__
        return
    elif isinstance(owner, FunctionType):
        held = {key: attribute.read() for key, attribute in _of_function(owner)}
    elif isinstance(owner, type | ModuleType):
        held = {key: value for key, value in vars(owner).items() if not key.startswith("__")}
    else:
        if isinstance(owner, nn.Module):
            yield from ((f"{name}.{key}", child) for key, child in owner.named_children())
        # a module may hold objects that are no modules
        held = {key: value for key, value in variables(owner).items() if key not in OF_EVERY_MODULE}
    # functions, classes and modules see much that is no part of a run: there only what is a user's own counts
    wanted = _is_own_thing if isinstance(owner, FunctionType | type | ModuleType) else _is_object
    for key, value in held.items():
        yield from _objects(f"{name}.{key}", value, wanted)


def _objects(name: str, value: Any, wanted: Callable[[Any], bool], depth: int = DEPTH) -> Iterator[tuple[str, Any]]:
    """A value that is an owner, or the owners in a container."""
    if type(value) in PLAIN:
        return
    if wanted(value):
        yield name, value
    elif depth and isinstance(value, list | tuple | deque):
        for i, each in enumerate(value):
            yield from _objects(f"{name}.{i}", each, wanted, depth - 1)
    elif depth and isinstance(value, dict):
        for key, each in value.items():
            yield from _objects(f"{name}.{key}", each, wanted, depth - 1)


def _is_object(value: Any) -> bool:
    """An object to look into: with attributes, and of no library that is known."""
    if isinstance(value, nn.Module | partial | MethodType):
        return True
    if isinstance(value, FunctionType):
        return is_own(value)
    if isinstance(value, type | ModuleType) or not _has_variables(value):
        return False
    package = type(value).__module__.partition(".")[0]
    return package not in KNOWN and package not in sys.stdlib_module_names


def _is_own_thing(value: Any) -> bool:
    """A user's own module, class or function, or an object of such a class."""
    if isinstance(value, FunctionType | type | ModuleType):
        return is_own(value)
    return is_own(type(value)) and _has_variables(value)


def _has_variables(value: Any) -> bool:
    return hasattr(value, "__dict__") or hasattr(type(value), "__slots__")


def _attributes_of(name: str, owner: Any) -> Iterator[Attribute]:
    if isinstance(owner, FunctionType):
        yield from (replace(each, name=f"{name}.{key}") for key, each in _of_function(owner))
    # an object with a state dict saves the rest itself
    if isinstance(owner, partial | MethodType) or (not isinstance(owner, nn.Module | type) and keeps_state(owner)):
        return
    for key, value in variables(owner).items():
        if key in OF_EVERY_MODULE and isinstance(owner, nn.Module):
            continue
        if isinstance(owner, type | ModuleType) and (key.startswith("__") or _is_code(value)):
            continue
        yield _of_object(f"{name}.{key}", owner, key)
    if isinstance(owner, nn.Module):
        # its state dict leaves these out
        for key in owner._non_persistent_buffers_set:
            yield _of_object(f"{name}.{key}", owner, key)


def _is_code(value: Any) -> bool:
    return callable(value) or isinstance(value, ModuleType | property | classmethod | staticmethod)


def _of_object(name: str, owner: Any, key: str) -> Attribute:
    # a frozen dataclass refuses what it holds itself
    plain = not isinstance(owner, nn.Module | type | ModuleType | FunctionType)
    put, take = (object.__setattr__, object.__delattr__) if plain else (setattr, delattr)

    def write(value: Any) -> None:
        if value is not MISSING:
            put(owner, key, value)
        elif hasattr(owner, key):
            take(owner, key)

    return Attribute(name, lambda: getattr(owner, key, MISSING), write)


def _of_function(function: FunctionType) -> Iterator[tuple[str, Attribute]]:
    """The variables that a function keeps between calls: of its closure, and the defaults of its arguments."""
    for key, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        yield key, _of_cell(key, cell)
    arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
    count = len(function.__defaults__ or ())
    for place, key in enumerate(arguments[len(arguments) - count :]):
        yield key, _of_default(key, function, place)
    for key in function.__kwdefaults__ or ():
        yield key, _of_keyword(key, function)


def _of_default(name: str, function: FunctionType, place: int) -> Attribute:
    def write(value: Any) -> None:
        given = function.__defaults__ or ()
        function.__defaults__ = (*given[:place], value, *given[place + 1 :])

    return Attribute(name, lambda: (function.__defaults__ or ())[place], write)


def _of_keyword(name: str, function: FunctionType) -> Attribute:
    return Attribute(
        name,
        lambda: (function.__kwdefaults__ or {}).get(name, MISSING),
        lambda value: (function.__kwdefaults__ or {}).update({name: value}),
    )


def _of_cell(name: str, cell: CellType) -> Attribute:
    def read() -> Any:
        try:
            return cell.cell_contents
        except ValueError:  # it is empty
            return MISSING

    def write(value: Any) -> None:
        if value is not MISSING:
            cell.cell_contents = value

    return Attribute(name, read, write)
