"""The cache folder, with files that can be computed again.

A cached file is compared with its checksum when it is read: one that a disk or a person has altered is made again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEFAULT = Path("~/.cache/dlrun")


def cache_root() -> Path:
    """The cache folder: `DLRUN_CACHE`, else `~/.cache/dlrun`.

    It is safe to delete.
    """
    given = os.environ.get("DLRUN_CACHE")
    return Path(given).expanduser().absolute() if given else default_root()


def default_root() -> Path:
    """`~/.cache/dlrun`; for a user without a home (a container), a folder in the temporary one."""
    try:
        return DEFAULT.expanduser().absolute()
    except RuntimeError:
        return _of_the_homeless()


@functools.cache
def _of_the_homeless() -> Path:
    folder = Path(tempfile.gettempdir(), f"dlrun-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    # a folder or link that somebody else put there could hold files of theirs
    return folder if folder.lstat().st_uid == os.getuid() and not folder.is_symlink() else Path(tempfile.mkdtemp())


def path_for(folder: str, ending: str, *keys: str) -> Path:
    """The cached file of some keys."""
    digest = hashlib.sha256("\n".join(keys).encode(errors="surrogateescape")).hexdigest()[:32]
    return cache_root() / folder / f"{digest}.{ending}"


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


def save(path: Path, content: Any) -> None:
    """Cache plain values, with their checksum."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"crc32": _checksum(content), "content": content}), encoding="utf-8")


def load(path: Path) -> Any:
    """Plain values from the cache.

    Raises `OSError` or `ValueError` if the file is missing or damaged.
    """
    try:
        cached = json.loads(path.read_text(encoding="utf-8"))
        intact = cached["crc32"] == _checksum(cached["content"])
    except (KeyError, TypeError) as error:  # some other JSON
        raise ValueError(f"{path} is damaged") from error
    if not intact:
        raise ValueError(f"{path} is damaged")
    return cached["content"]


def checksum_of(path: Path) -> int:
    """The CRC-32 of a file, at about 5 GB a second."""
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found = zlib.crc32(chunk, found)
    return found


def _checksum(content: Any) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
