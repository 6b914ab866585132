"""How much a file may become in memory: a few kilobytes can be, or claim to be, many gigabytes."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path
from typing import IO, Any

from dlrun.errors import DataError

LEAST = 1 << 30
"""Bytes that any file may become."""
RATIO = 100
"""Times its own size that a larger one may become. Texts shrink to a fifth, tables to a tenth; repeated bytes, of
which bombs are made, to a thousandth."""


def most_bytes(path: Path) -> int:
    return max(LEAST, RATIO * path.stat().st_size)


def too_large(path: Path, size: int) -> str | None:
    """Why a file may not become so many bytes, for a message; None if it may."""
    most = most_bytes(path)
    if size <= most:
        return None
    return f"its {path.stat().st_size:,} bytes would become {size:,} in memory, and at most {most:,} are expected"


def open_packed(path: Path) -> IO[bytes]:
    """Open a file to read, unpacked if it ends with .gz; raises `DataError` where that is too much."""
    if path.suffix.lower() != ".gz":
        return path.open("rb")
    return io.BufferedReader(_Packed(path), 1 << 16)


class _Packed(io.RawIOBase):
    """The content of a gzip-compressed file."""

    def __init__(self, path: Path) -> None:
        self._path, self._most = path, most_bytes(path)
        self._file = gzip.GzipFile(path, "rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read1(len(buffer))
        buffer[: len(content)] = content
        if self._file.tell() > self._most:
            raise DataError(
                f"{self._path} unpacks to more than {self._most:,} bytes, which is unusual for its size. If you trust "
                f"it, unpack it: gunzip {self._path}"
            )
        return len(content)

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(place, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()
