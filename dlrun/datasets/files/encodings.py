"""The encoding of a text file, where its first bytes tell it."""

from __future__ import annotations

from pathlib import Path

from dlrun.errors import DataError

# the longest first: UTF-32 begins as UTF-16 does
_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_LOOKED_AT = 256
_PACKED = {
    b"\x1f\x8b": "gunzip -k",
    b"\xfd7zXZ\0": "unxz -k",
    b"BZh": "bunzip2 -k",
    b"PK\x03\x04": "unzip",
    b"\x28\xb5\x2f\xfd": "unzstd",
}


def refuse_wide(path: Path, start: bytes) -> None:
    """Raise `DataError` for a table in UTF-16 or UTF-32, or a compressed one, by the start of its file."""
    refuse_packed(path, start)
    if encoding := wide_encoding(start):
        raise DataError(
            f"{path} is {encoding}; expected UTF-8. Save it as CSV UTF-8, or type "
            f"iconv -f {encoding.lower()} -t utf-8 {path} > new.csv"
        )


def refuse_packed(path: Path, start: bytes) -> None:
    """Raise `DataError` for a compressed file, by its start."""
    if command := unpacking(start):
        raise DataError(f"{path} is compressed; expected a file that is not. Type {command} {path}")


def unpacking(start: bytes) -> str | None:
    """The command that unpacks a file, by its start; None for one that is not compressed.

    >>> unpacking(b"\\x1f\\x8b\\x08"), unpacking(b"text")
    ('gunzip -k', None)
    """
    return next((command for mark, command in _PACKED.items() if start.startswith(mark)), None)


def wide_encoding(start: bytes) -> str | None:
    """UTF-16 or UTF-32, if the start of a file is of it; None for any other.

    A byte order mark tells it; without one, every other byte of most texts in UTF-16 is zero.

    >>> wide_encoding("ab".encode("utf-16")), wide_encoding("abcdef".encode("utf-16-be")), wide_encoding(b"abcdef")
    ('UTF-16', 'UTF-16BE', None)
    """
    for mark, name in _MARKS.items():
        if start.startswith(mark):
            return name
    some = start[: min(len(start) // 2 * 2, _LOOKED_AT)]
    even, odd = (some[place::2].count(0) / max(1, len(some) // 2) for place in (0, 1))
    if max(even, odd) > 0.6 and min(even, odd) < 0.1:
        return "UTF-16BE" if even > odd else "UTF-16LE"
    return None
