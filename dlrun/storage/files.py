"""Files and folders that several processes share: locks, atomic writes, links, waiting."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from dlrun.errors import DamagedFile, UserError

NO_FILE = "it is a folder, a pipe or a device"
IRREGULAR = "Delete it, or put a copy of the file back."

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
def locked(path: Path) -> Iterator[IO[str]]:
    """Wait for the lock file `path`, and hold it; yields it, for a note in it."""
    with open_regular(path, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


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
        return open(path, mode, buffering=buffering, opener=opener)
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


def sync_folder(folder: Path) -> None:
    """Force a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # some file systems of networks cannot
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def leads_out(path: Path, folder: Path) -> bool:
    """True if a path, its links followed, lies outside of the folder."""
    # `realpath` takes a link to itself, which `Path.resolve` does not
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def links_out(folder: Path) -> Iterator[Path]:
    """The links in a folder that lead out of it."""
    for here, folders, names in os.walk(folder):
        for path in (Path(here, name) for name in (*folders, *names)):
            if path.is_symlink() and leads_out(path, folder):
                yield path


def check_files(folder: Path) -> None:
    """Raise `UserError` for a link that leads out of a folder, and for a pipe or a device in it.

    A folder of runs may come from somebody else: its links could have any file read, sent or written to, and its pipes
    could have a reader wait for ever.
    """
    for path in _pipes(folder):
        raise UserError(f"{path} is a pipe or a device, which no run has. Delete it.")
    for link in links_out(folder):
        raise UserError(
            f"{link} is a link out of its folder, to {os.path.realpath(link)}. Links of runs are not followed: "
            f"put the file itself there, or delete the link."
        )


def _pipes(folder: Path) -> Iterator[Path]:
    for here, _, names in os.walk(folder):
        for path in (Path(here, name) for name in names):
            with suppress(FileNotFoundError):  # of a run in training, files come and go
                mode = path.lstat().st_mode
                if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                    yield path


def remove_folder(folder: Path) -> None:
    """Delete a folder, and what its links lead to not."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)


def wait_until(condition: Callable[[], bool], seconds: float, poll: float = 0.05) -> bool:
    """Wait for `condition`, at most `seconds`; False if in vain."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        pause(poll)
    return True


def pause(seconds: float) -> None:
    """Wait, also where the clock is simulated.

    `time.sleep` waits for a time of the clock, and fails there.
    """
    select.select((), (), (), seconds)
