"""Plain, gzip- and xz-compressed files, read up to a size that is known before."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

_DICTIONARY = 1 << 28  # bytes that unpacking xz may take: `xz -9` asks for 65 MiB, a file may ask for 4 GiB
_PIECE = 1 << 20


class TooLarge(ValueError):
    """A file has more content than expected."""


def unpack(path: Path, most: int) -> bytes:
    """The unpacked content of a file, by its ending.

    A few kilobytes unpack to many gigabytes, so no more than `most` bytes are unpacked. Raises `TooLarge` if there are
    more, and `OSError`, `EOFError`, `zlib.error` or `lzma.LZMAError` for a file that cannot be read.
    """
    if path.suffix == ".xz":
        content = _unpack_xz(path, most)
    else:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            content = file.read(most + 1)
    if len(content) > most:
        raise TooLarge(f"it has more than {most:,} bytes")
    return content


def _unpack_xz(path: Path, most: int) -> bytes:
    # `lzma.open` has no limit of memory
    content, unpacker = bytearray(), lzma.LZMADecompressor(memlimit=_DICTIONARY)
    with path.open("rb") as file:
        while len(content) <= most:
            if unpacker.eof:
                # a file may have several streams, with zeros between
                packed = unpacker.unused_data.lstrip(b"\0") or file.read(_PIECE).lstrip(b"\0")
                if not packed:
                    break
                unpacker = lzma.LZMADecompressor(memlimit=_DICTIONARY)
            else:
                packed = file.read(_PIECE) if unpacker.needs_input else b""
                if unpacker.needs_input and not packed:
                    raise EOFError("its end is missing")
            content += unpacker.decompress(packed, most + 1 - len(content))
    return bytes(content)
