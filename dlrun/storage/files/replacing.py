"""Files replaced in one move, durably."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Replace a file in one move, durably.

    A reader sees the old content or the new, never a part; so does who looks after a power cut.
    """
    # in the same folder, for a rename across file systems is no single move
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        # `x` follows no link
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            # else a machine that goes down could leave the new name with no content
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to, which then replaces it in one move.

    If the block raises, or is interrupted, `path` stays as it was.
    """
    # the suffix stays: libraries go by it
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Force a folder's names to the disk."""
    # some file systems of networks cannot, and a folder may be one to pass through only
    with suppress(OSError):
        _sync(folder)


def sync_files(folder: Path) -> None:
    """Force a folder's files to the disk that another program has written, and the folder's own name."""
    for path in folder.iterdir():
        if path.is_file() and not path.is_symlink():
            _sync(path)
    sync_folder(folder)
    sync_folder(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
