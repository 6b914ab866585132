"""What reading a stranger's file may not do: last, fill the memory, open files elsewhere, run something."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SECONDS = 10.0
"""Of the processor, for one small file."""
MEGABYTES = 600
"""Of memory, for one small file: twice the 256 MiB that one may unpack to here."""

_STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "pty.spawn")
_REACHES = ("socket.connect", "socket.bind", "socket.sendto", "urllib.Request", "webbrowser.open", "ftplib.connect")
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.truncate", "os.chmod")
# code and tables of what is installed, the kernel's
_READ = (
    *(sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]), *filter(os.path.isabs, sys.path)),
    *("/usr", "/proc", "/sys", "/dev", "/etc/mime.types"),
)
_FONTS = ("~/.cache/matplotlib", "~/.config/matplotlib")


class Finding(BaseException):
    """A file had its reader do something that it must not; no `except Exception` hides it."""


class _Watch:
    """What the process does meanwhile, by Python's audit events; a hook cannot be removed, so there is one."""

    def __init__(self) -> None:
        self.folders: tuple[str, ...] = ()
        self.found: list[str] = []
        self._hooked = False

    def begin(self, folder: Path) -> None:
        if not self._hooked:
            sys.addaudithook(self._event)
            self._hooked = True
        self.found = []
        cache = os.environ.get("DLRUN_CACHE") or "~/.cache/dlrun"
        # matplotlib keeps a list of fonts
        places = (str(folder), tempfile.gettempdir(), *map(os.path.expanduser, (cache, *_FONTS)))
        self.folders = tuple(dict.fromkeys([*places, *map(os.path.realpath, places)]))

    def end(self) -> list[str]:
        self.folders = ()
        return self.found

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folders:
            return
        if event in _STARTS or event in _REACHES:
            self.found.append(f"{event} {arguments!r:.200}")
        elif event == "open":
            path, mode, flags = arguments
            writes = bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or bool(set(mode or "") & set("wax+"))
            if isinstance(path, str | bytes) and not self._may(os.fsdecode(path), writes):
                self.found.append(f"open {path!r} {mode}")
        elif event in _CHANGES and not all(
            self._may(os.fsdecode(p), True) for p in arguments if isinstance(p, str | bytes)
        ):
            self.found.append(f"{event} {arguments!r:.200}")

    def _may(self, path: str, writes: bool) -> bool:
        path = os.path.normpath(Path.cwd() / path)
        # and what Python compiles
        if path.startswith(self.folders) or path.endswith(".pyc") or path == os.devnull:
            return True
        return not writes and path.startswith(_READ)


WATCH = _Watch()


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Raise `Finding` for a block that lasts, fills the memory, or reaches out of a folder."""

    def stop(number: int, frame: Any) -> None:
        raise Finding(f"it takes more than {SECONDS:.0f} seconds")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    start = _forget_peak()
    WATCH.begin(folder)
    try:
        yield
    finally:
        found = WATCH.end()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    grown = _peak() - start
    if found:
        raise Finding(f"it reaches out: {'; '.join(found[:3])}")
    if start and grown > MEGABYTES:
        raise Finding(f"it takes {grown:.0f} MB of memory")


def _forget_peak() -> float:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return _peak()
    return 0.0


def _peak() -> float:
    """The most memory since the last `_forget_peak`, in MB."""
    with suppress(OSError, StopIteration), Path("/proc/self/status").open() as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) / 1024
    return 0.0
