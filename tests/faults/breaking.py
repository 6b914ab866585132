"""A way to break a victim: signals, disks, power, permissions, clocks, and its store."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.faults.victims import Victim

SHUTDOWN = 2 << 30 | 4 << 16 | ord("X") << 8 | 125
"""EXT4_IOC_SHUTDOWN."""
NO_FLUSH = struct.pack("I", 2)

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")

ORDINARY = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for right in (1, 2):  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: a superuser's, to whom no permission matters
    libc.prctl(24, right, 0, 0, 0)
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
rights = (ctypes.c_uint32 * 6)()
assert libc.capget(header, rights) == 0
for each in range(3):
    rights[each] &= ~0b110
assert libc.capset(header, rights) == 0
"""
"""Code that gives up a superuser's rights over files."""


def send(number: signal.Signals, victims: list[psutil.Process]) -> None:
    """Signal processes, as fast as they can be signalled."""
    for process in victims:
        with suppress(psutil.Error):
            process.send_signal(number)


@contextmanager
def small_disk(place: Path, options: str) -> Iterator[Path]:
    """A file system in memory with the limits `options`."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system takes a superuser: run `make faults` as root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def full(place: Path, *, inodes: bool, spare: int = 0) -> Iterator[None]:
    """Let a file system be full, but for `spare` bytes, and stay so whatever is deleted there."""
    over, filled = threading.Event(), threading.Event()
    fillers = place / "fillers"
    fillers.mkdir()

    def fill() -> None:
        while not over.is_set():
            (_take_inodes if inodes else _take_space)(fillers, 0 if filled.is_set() else spare)
            filled.set()
            over.wait(0.003)

    thread = threading.Thread(target=fill)
    thread.start()
    filled.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for file in fillers.iterdir():
            file.unlink()
        fillers.rmdir()


def _take_space(folder: Path, spare: int) -> None:
    with suppress(OSError), (folder / "space").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16) if _free(folder) > 1 << 17 else bytes(4096))
    # the last page is the victim's own: a line of a journal may fit in part
    if spare:
        os.truncate(folder / "space", max(0, (folder / "space").stat().st_size - spare))


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _take_inodes(folder: Path, _: int) -> None:
    with suppress(OSError):
        while True:
            (folder / f"{time.monotonic_ns()}").touch()


class Machine:
    """A file system of ext4 in a file, whose power can be cut: what was not forced to the disk is lost."""

    def __init__(self, place: Path, options: str) -> None:
        self.mounted, self._image, self._options = place / "disk", place / "image", options
        self.mounted.mkdir()
        with self._image.open("wb") as file:
            file.truncate(96 << 20)
        made = subprocess.run(["mkfs.ext4", "-q", "-F", str(self._image)], capture_output=True)
        if os.geteuid() != 0 or made.returncode or self._mount(check=False):
            pytest.skip("a file system in a file takes a superuser and loop devices: run `make faults` as root")

    def _mount(self, *, check: bool = True) -> int:
        command = ["mount", "-o", f"loop,{self._options}", str(self._image), str(self.mounted)]
        return subprocess.run(command, capture_output=True, check=check).returncode

    def cut(self, victim: Victim) -> None:
        """Cut the power: the disk first, then all processes. The file system is mounted again."""
        descriptor, alive = os.open(self.mounted, os.O_RDONLY), victim.processes()
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, NO_FLUSH)
        finally:
            os.close(descriptor)
        send(signal.SIGKILL, alive)
        end = time.monotonic() + 20
        while subprocess.run(["umount", str(self.mounted)], capture_output=True).returncode:
            send(signal.SIGKILL, victim.processes())
            assert time.monotonic() < end, "the file system is still in use"
            time.sleep(0.05)
        self._mount()

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.mounted)], capture_output=True)


@contextmanager
def forbidden(*folders: Path) -> Iterator[None]:
    """Take the right to write in folders."""
    modes = {folder: folder.stat().st_mode for folder in folders}
    for folder in folders:
        folder.chmod(0o555)
    try:
        yield
    finally:
        for folder, mode in modes.items():
            folder.chmod(mode)


def clock(place: Path) -> tuple[dict[str, str], Callable[[str], None]]:
    """Variables for a process whose clock on the wall can be set, and what sets it: `set("-1h")`."""
    if not FAKETIME.exists():
        pytest.skip("a clock that can be set is libfaketime's: type `apt-get install libfaketime`")
    file = place / "clock"
    file.write_text("+0")

    def set_clock(text: str) -> None:
        new = place / "clock.new"
        new.write_text(text)
        new.replace(file)

    settings = {"FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    return settings | {"LD_PRELOAD": str(FAKETIME)}, set_clock


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Hold a store's lock, as another program may."""
    with closing(sqlite3.connect(store, isolation_level=None, timeout=60)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield
        database.execute("ROLLBACK")


@contextmanager
def corrupt(store: Path) -> Iterator[None]:
    """Overwrite the head of a store; who mends it deletes it."""
    with store.open("r+b") as file:
        file.write(b"garbage, garbage")
    yield
    delete(store)


@contextmanager
def later(store: Path) -> Iterator[None]:
    """Let a store be one of a later MLflow."""
    question = "UPDATE alembic_version SET version_num = ?"
    with closing(sqlite3.connect(store, timeout=60)) as database:
        before = database.execute("SELECT version_num FROM alembic_version").fetchone()
        database.execute(question, ("ffffffffffff",))
        database.commit()
    yield
    with closing(sqlite3.connect(store, timeout=60)) as database:
        after = database.execute("SELECT version_num FROM alembic_version").fetchone()
        assert after == ("ffffffffffff",), "a store of a later MLflow was changed"
        database.execute(question, before)
        database.commit()


@contextmanager
def deleted(store: Path) -> Iterator[None]:
    """Delete a store."""
    delete(store)
    yield


def delete(store: Path) -> None:
    for file in store.parent.glob(f"{store.name}*"):
        file.unlink()
