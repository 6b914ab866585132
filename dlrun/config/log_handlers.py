"""The log handlers of a configuration: what they are, and where they write.

`logging.config` makes handlers of any class and calls any function; a `FileHandler` empties any file.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("logging", "colorlog", "rich.logging")
"""Packages of formatters and handlers."""

_KINDS = {"handlers": logging.Handler, "formatters": logging.Formatter, "filters": logging.Filter}
_QUIET = ("StreamHandler", "NullHandler", "MemoryHandler", "RichHandler")
"""Handlers, beside those of files, that send nothing elsewhere."""


def misplaced(content: Mapping[str, Any], roots: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yield (key, reason) of each entry of a logging section that acts outside of `roots`.

    Its interpolations are resolved, and its classes are of `PACKAGES` or trusted.
    """
    for kind, base in _KINDS.items():
        entries = content.get(kind)
        for name, entry in entries.items() if isinstance(entries, Mapping) else ():
            if not isinstance(entry, Mapping) or not (path := entry.get("()") or entry.get("class")):
                continue
            if not str(path).startswith(tuple(f"{package}." for package in PACKAGES)):
                continue  # the user's own, or trusted
            reason = _reason(entry, _find(str(path)), base, roots)
            if reason:
                yield f"{kind}.{name}", reason


def _reason(entry: Mapping[str, Any], found: Any, base: type, roots: Sequence[Path]) -> str:
    if not (isinstance(found, type) and issubclass(found, base)):
        return f"is no class of a {base.__name__}"
    if "." in entry:
        return "sets attributes (`.`)"
    if not issubclass(found, logging.Handler):
        return ""
    if issubclass(found, logging.FileHandler):
        file = str(entry.get("filename", ""))
        inside = any(Path(os.path.realpath(file)).is_relative_to(os.path.realpath(root)) for root in roots)
        return "" if inside and Path(file).is_absolute() else f"writes to {file or 'no file'}"
    return "" if found.__name__ in _QUIET else "sends its records elsewhere"


def _find(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
