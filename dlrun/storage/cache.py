"""The cache folder, with files that can be computed again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEFAULT = Path("~/.cache/dlrun")


def cache_root() -> Path:
    """The cache folder: `DLRUN_CACHE`, else `~/.cache/dlrun`.

    It is safe to delete.
    """
    return Path(os.environ.get("DLRUN_CACHE") or DEFAULT).expanduser().absolute()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replace a file in one move.

    Yields a path to write to. If the block raises, `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # in the same folder, for a move between file systems is a copy; a name for each process
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
