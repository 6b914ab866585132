"""The attributes of a run's parts in which state may hide: of objects, their classes, and a user's own modules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

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
    for name, owner in _owners(parts):
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


def _owners(parts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
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
        yield from ((f"{name}.{key}", value) for key, value in owner.keywords.items() if _is_object(value))
        yield from ((f"{name}.{i}", value) for i, value in enumerate(owner.args) if _is_object(value))
    elif isinstance(owner, MethodType):
        yield name, owner.__self__
    elif isinstance(owner, type | ModuleType | FunctionType):
        return
    elif isinstance(owner, nn.Module):
        yield from ((f"{name}.{key}", child) for key, child in owner.named_children())
    # a module may hold objects that are no modules
    if not isinstance(owner, partial | MethodType):
        for key, value in vars(owner).items() if hasattr(owner, "__dict__") else ():
            if key not in OF_EVERY_MODULE and _is_object(value):
                yield f"{name}.{key}", value


def _is_object(value: Any) -> bool:
    """An object to look into: with attributes, and of no library that is known."""
    if isinstance(value, nn.Module | partial | MethodType):
        return True
    if isinstance(value, type | ModuleType) or not hasattr(value, "__dict__"):
        return False
    package = type(value).__module__.partition(".")[0]
    return package not in KNOWN and package not in sys.stdlib_module_names


def _attributes_of(name: str, owner: Any) -> Iterator[Attribute]:
    if isinstance(owner, FunctionType):
        cells = zip(owner.__code__.co_freevars, owner.__closure__ or (), strict=False)
        yield from (_of_cell(f"{name}.{key}", cell) for key, cell in cells)
    if isinstance(owner, partial | MethodType) or not hasattr(owner, "__dict__"):
        return
    # it saves the rest itself
    if not isinstance(owner, nn.Module | type) and keeps_state(owner):
        return
    for key, value in list(vars(owner).items()):
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
    def write(value: Any) -> None:
        if value is not MISSING:
            setattr(owner, key, value)
        elif hasattr(owner, key):
            delattr(owner, key)

    return Attribute(name, lambda: getattr(owner, key, MISSING), write)


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
