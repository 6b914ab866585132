"""The source of a user's own modules: the names that their functions change, and the texts in it."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

from dlrun.engine.own.attributes import is_own

MAKING = ("__init__", "__new__", "__post_init__", "__init_subclass__")
"""Functions that give attributes their first values."""

QUOTED_NAME = re.compile(r"""["']([A-Za-z_]\w*)["']""")


@dataclass(frozen=True)
class SourceNames:
    """What a source says of the state in it."""

    assigned: set[str] = field(default_factory=set)
    """Attributes and variables that a function gives another value."""
    mutated: set[str] = field(default_factory=set)
    """Those whose items it sets, or whose methods it calls."""
    texts: set[str | bytes] = field(default_factory=set)
    """The constants."""


def read_source(owners: Iterable[Any]) -> SourceNames:
    """The source of the modules that objects, their classes and functions come from, if they are the user's own."""
    source = SourceNames()
    for module in dict.fromkeys(module for owner in owners for module in _modules(owner)):
        try:
            tree = ast.parse(inspect.getsource(module))
        except (OSError, TypeError, SyntaxError, ValueError):
            continue  # compiled, or gone: nothing is known of it
        _Reader(source).visit(tree)
    return source


@cache
def optimizer_names() -> frozenset[str]:
    """The names in quotes in torch's source of its optimizers, among them those of their states."""
    found: set[str] = set()
    for module in [each for name, each in sys.modules.items() if name.startswith("torch.optim.")]:
        try:
            found.update(QUOTED_NAME.findall(inspect.getsource(module)))
        except (OSError, TypeError):
            continue  # torch without its source: a user has to trust the names
    return frozenset(found)


def _modules(owner: Any) -> Iterable[ModuleType]:
    if isinstance(owner, ModuleType):
        return [owner] if is_own(owner) else []
    kinds = [owner] if isinstance(owner, FunctionType) else (owner if isinstance(owner, type) else type(owner)).__mro__
    return [sys.modules[kind.__module__] for kind in kinds if is_own(kind)]


class _Reader(ast.NodeVisitor):
    def __init__(self, source: SourceNames) -> None:
        self._source = source
        # a module's own lines, and constructors, give first values
        self._changing = False

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        before, self._changing = self._changing, node.name not in MAKING
        self.generic_visit(node)
        self._changing = before

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Global(self, node: ast.Global | ast.Nonlocal) -> None:
        self._source.assigned.update(node.names)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self.visit_Global(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if self._changing and not isinstance(node.ctx, ast.Load):
            self._source.assigned.add(node.attr)
        if self._changing and isinstance(node.ctx, ast.Load):
            # of `self.seen.append`, `seen`
            self._source.mutated.update(_name(node.value))
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if self._changing and not isinstance(node.ctx, ast.Load):
            self._source.mutated.update(_name(node.value))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str | bytes):
            self._source.texts.add(node.value)


def _name(node: ast.expr) -> list[str]:
    while isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return [node.attr]
    return [node.id] if isinstance(node, ast.Name) else []
