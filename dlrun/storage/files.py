"""Files and folders that several processes share: locks, atomic writes, waiting."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from dlrun.errors import DamagedFile, UserError

_held: set[IO[str]] = set()
"""The folders' locks that this process holds."""


@contextmanager
def hold(folder: Path, *, busy: str) -> Iterator[None]:
    """Hold a folder's lock.

    The kernel frees it however the process ends. Raises `UserError` with the message `busy` if another process holds
    it.
    """
    with (folder / ".lock").open("a") as file:
        # `is_held` takes the lock too, for a moment
        if not wait_until(lambda: _lock(file), 0.5, poll=0.01):
            raise UserError(busy)
        _held.add(file)
        try:
            yield
        finally:
            _held.discard(file)


def is_held(folder: Path) -> bool:
    """True while a process holds the folder's lock."""
    try:
        with (folder / ".lock").open() as file:
            # shared: two that look at the same time do not see each other
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _close_held() -> None:
    # a forked process (a worker that reads data) shares its parent's locks, and may outlive it
    for file in _held:
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_close_held)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for the lock file `path`, and hold it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_json(path: Path, *, advice: str) -> dict[str, Any]:
    """A file's JSON object.

    Raises `FileNotFoundError`, and `DamagedFile` with `advice` if there is no object in it.
    """
    text = path.read_bytes()
    try:
        content = json.loads(text)
    except ValueError as error:  # bytes that are no UTF-8 too
        found = f"it is no JSON ({error})" if text else "it is empty"
        raise DamagedFile(path, found, advice) from None
    if not isinstance(content, dict):
        raise DamagedFile(path, f"a mapping is expected, and it is a {type(content).__name__}", advice)
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one move, durably.

    A reader sees the old content or the new, never a part; so does who looks after a power cut.
    """
    # in the same folder, for a rename across file systems is no single move
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            # else a machine that goes down could leave the new name with no content
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Force a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # some file systems of networks cannot
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def wait_until(condition: Callable[[], bool], seconds: float, poll: float = 0.05) -> bool:
    """Wait for `condition`, at most `seconds`; False if in vain."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(poll)
    return True
