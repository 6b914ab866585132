"""Files opened in a folder that may come from somebody else."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import IO, Any, TextIO, cast

from dlrun.errors import DamagedFile

NO_FILE = "it is a folder, a pipe or a device"
IRREGULAR = "Delete it, or put a copy of the file back."


def open_regular(path: Path, mode: str, *, advice: str = IRREGULAR, buffering: int = -1) -> IO[Any]:
    """Open a file of a folder that may come from somebody else.

    Raises `DamagedFile` with `advice` for a folder, and for a pipe or a device, which could have its reader wait for
    ever; and for a link in place of a file to write, which could have one made elsewhere.
    """

    def opener(name: str, flags: int) -> int:
        # a pipe is opened at once, whoever is at its other end
        flags |= os.O_NOFOLLOW if flags & os.O_CREAT else 0
        descriptor = os.open(name, flags | os.O_NONBLOCK, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise DamagedFile(path, NO_FILE, advice)
        return descriptor

    try:
        encoding = None if "b" in mode else "utf-8"
        return open(path, mode, buffering=buffering, encoding=encoding, opener=opener)
    except OSError as error:
        # a folder to write to, a pipe that nobody reads
        if error.errno in (errno.EISDIR, errno.ENXIO, errno.ELOOP):
            raise DamagedFile(path, "it is a link" if path.is_symlink() else NO_FILE, advice) from None
        raise


def read_bytes(path: Path, *, advice: str) -> bytes:
    """The content of a file, opened as `open_regular` does."""
    with open_regular(path, "rb", advice=advice) as file:
        content: bytes = file.read()
    return content


def read_json(path: Path, *, advice: str) -> dict[str, Any]:
    """A file's JSON object.

    Raises `FileNotFoundError`, and `DamagedFile` with `advice` if there is no object in it.
    """
    text = read_bytes(path, advice=advice)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # bytes that are no UTF-8 too
        found = f"it is no JSON ({error})" if text else "it is empty"
        raise DamagedFile(path, found, advice) from None
    if not isinstance(content, dict):
        raise DamagedFile(path, f"a mapping is expected, and it is a {type(content).__name__}", advice)
    return content


def open_log(path: Path) -> TextIO:
    """Open a log to append lines to; raises as `open_regular` does."""
    return cast("TextIO", open_regular(path, "a"))
