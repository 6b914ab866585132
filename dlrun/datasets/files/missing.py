"""The message for a path that a configuration names, and where nothing of the kind is."""

from __future__ import annotations

from pathlib import Path

from dlrun.errors import did_you_mean


def no_such(key: str, path: Path, expected: str) -> str:
    """Name what is at `path` in place of what was `expected`, with a like name beside it; `key` gave the path."""
    found = "is a folder" if path.is_dir() else "is a file" if path.exists() else "does not exist"
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = "" if path.exists() else did_you_mean(path.name, beside)
    return f"{key}: {path} {found}; expected {expected}.{hint}"
