"""Locks that the kernel frees, however their process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dlrun.errors import UserError
from dlrun.storage.files.opening import open_regular
from dlrun.storage.files.waiting import wait_until

_held: set[IO[str]] = set()
"""The folders' locks that this process holds."""


@contextmanager
def hold(folder: Path, *, busy: str) -> Iterator[None]:
    """Hold a folder's lock.

    The kernel frees it however the process ends. Raises `UserError` with the message `busy` if another process holds
    it.
    """
    with open_regular(folder / ".lock", "a") as file:
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
        with open_regular(folder / ".lock", "rb") as file:
            # shared: two that look at the same time do not see each other
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def locked(path: Path) -> Iterator[IO[str]]:
    """Wait for the lock file `path`, and hold it; yields it, for a note in it."""
    with open_regular(path, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


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
