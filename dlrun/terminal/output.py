"""Lines for people, on the screen and in the open log files, without control characters.

The log files are kept in a context variable: a thread of its own starts with none.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from math import inf
from typing import TextIO
from weakref import WeakKeyDictionary

from dlrun.terminal.escape import visible

HEARTBEAT = 30.0
"""Seconds between two lines of progress in a log, if nothing else ends."""

CELL = 100
"""Characters of a live line in a notebook's cell."""

CELL_EVERY = 1.0
"""Seconds between two live lines of a cell: its notebook keeps them all."""

_live: WeakKeyDictionary[TextIO, tuple[int, float]] = WeakKeyDictionary()
"""The length of a cell's live line, and when it was shown."""

_said: ContextVar[set[tuple[int, str]] | None] = ContextVar("said", default=None)
"""Within `once`: the lines printed so far, by their streams."""

_logs: ContextVar[tuple[TextIO, ...]] = ContextVar("logs", default=())


@dataclass(frozen=True)
class Output:
    """Two streams, and log files for the same lines."""

    out: TextIO
    err: TextIO
    logs: tuple[TextIO, ...]

    @contextmanager
    def use(self) -> Iterator[None]:
        """Send all lines here, and everything else Python prints."""
        with _use_logs(*self.logs), redirect_stdout(self.out), redirect_stderr(self.err):
            yield


@contextmanager
def duplicate() -> Iterator[Output]:
    """A copy of the present output, safe from later redirections."""
    with ExitStack() as stack:
        out, err = (stack.enter_context(_duplicate(stream)) for stream in (sys.stdout, sys.stderr))
        yield Output(out, err, _logs.get())


@contextmanager
def tee(file: TextIO) -> Iterator[None]:
    """Write all lines to a log file too, and close it."""
    try:
        with _use_logs(*_logs.get(), file):
            yield
    finally:
        with suppress(OSError):  # a full disk costs lines of the log, nothing else
            file.close()


@contextmanager
def isolated() -> Iterator[None]:
    """Suspend the log files opened so far."""
    with _use_logs():
        yield


@contextmanager
def only(log: TextIO | None = None) -> Iterator[None]:
    """Print nothing; send all lines to `log` or nowhere."""
    with Output(_NOWHERE, _NOWHERE, () if log is None else (log,)).use():
        yield


@contextmanager
def once() -> Iterator[None]:
    """Print a line that is printed again within the context only the first time."""
    token = _said.set(set())
    try:
        yield
    finally:
        _said.reset(token)


@contextmanager
def optional() -> Iterator[None]:
    """Print lines that may stay unread: a closed pipe (`| head`) is no error here."""
    with _use_logs(*_logs.get(), _NOWHERE):
        yield


def say(text: str = "") -> None:
    """Print a line on the standard output."""
    _print(sys.stdout, text)


def warn(text: str) -> None:
    """Print a line on the standard error, behind `dlrun: `."""
    _print(sys.stderr, text, prefix="dlrun: ")


def log(text: str) -> None:
    """Write to the log files; without a live line, print too."""
    if sys.stdout.isatty() or _is_cell(sys.stdout):
        _write(visible(text), _logs.get())
    else:
        say(text)


def live(text: str) -> None:
    """Replace the live line of a terminal or a notebook's cell; elsewhere, do nothing."""
    if _is_cell(sys.stdout):
        length, before = _live.get(sys.stdout, (0, -inf))
        if (now := time.monotonic()) - before >= CELL_EVERY:
            shown = visible(text)[:CELL]
            _show(sys.stdout, f"\r{shown.ljust(length)}")
            _live[sys.stdout] = len(shown), now
    elif sys.stdout.isatty():
        _show(sys.stdout, _clear(sys.stdout) + visible(text)[: _width(sys.stdout) - 1])


def prepare_streams() -> None:
    """Have the standard streams take every line: closed ones, and those of an encoding that lacks characters."""
    _open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a forked process's stream may have been a file when it was opened, and be a pipe now
            with suppress(OSError):
                # `…` is written \\u2026 where the encoding is ASCII
                stream.reconfigure(errors="backslashreplace")


def _open_missing_streams() -> None:
    """Open the null device for standard streams that are closed, as some schedulers leave them.

    Else the next file to be opened would get the number of one, and what a library prints there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: PTH123, SIM115  # until the process ends
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def show_traceback(error: BaseException) -> None:
    """Print an exception as Python does, without control characters."""
    import traceback  # `dlrun --help` imports this file

    _show(sys.stderr, visible("".join(traceback.format_exception(error))))


@contextmanager
def _use_logs(*logs: TextIO) -> Iterator[None]:
    token = _logs.set(logs)
    try:
        yield
    finally:
        _logs.reset(token)


@contextmanager
def _duplicate(stream: TextIO) -> Iterator[TextIO]:
    if _is_cell(stream):  # its descriptor, if it has one, is not the cell's
        yield stream
        return
    try:
        # a descriptor of its own: redirecting the process's would move the stream too
        number = os.dup(stream.fileno())
    except (OSError, ValueError):  # a stream without a descriptor, which cannot lose it
        yield stream
        return
    with os.fdopen(number, "w", buffering=1, encoding=stream.encoding, errors="backslashreplace") as copy:
        yield copy


class _Nowhere(io.TextIOBase):
    def write(self, text: str) -> int:
        return len(text)


_NOWHERE: TextIO = _Nowhere()  # type: ignore[assignment]


def _print(stream: TextIO, text: str, prefix: str = "") -> None:
    text = visible(text)
    if (said := _said.get()) is not None:
        if (id(stream), text) in said:
            return
        said.add((id(stream), text))
    if stream is not sys.stdout and (cleared := _clear_cell(sys.stdout)):
        # another stream is another block of the cell, below the live line
        _show(sys.stdout, cleared)
    _show(stream, f"{_clear(stream)}{prefix}{text}\n")
    # a sweep's job prints to its log file already: that gets no line twice
    _write(text, [file for file in _logs.get() if not _same_file(file, stream)])


def _write(text: str, logs: Iterable[TextIO]) -> None:
    for file in logs:
        with suppress(OSError):
            file.write(text + "\n")
            file.flush()


def _show(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        if not _logs.get():
            raise
        # nobody reads the screen any more (`| head`): a run that has a log goes on
        with suppress(OSError, ValueError):  # a notebook's stream has no descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _same_file(one: TextIO, other: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(one.fileno()), os.fstat(other.fileno()))
    except (OSError, ValueError):
        return False


def _clear(stream: TextIO) -> str:
    if _is_cell(stream):
        return _clear_cell(stream)
    return "\r\x1b[K" if stream.isatty() else ""


def _is_cell(stream: TextIO) -> bool:
    """True for the output of a notebook's cell: it obeys a carriage return, and no other control."""
    return type(stream).__module__ == "ipykernel.iostream"


def _clear_cell(stream: TextIO) -> str:
    length, _ = _live.pop(stream, (0, 0.0))
    return f"\r{' ' * length}\r" if length else ""


def _width(terminal: TextIO) -> int:
    with suppress(OSError, ValueError):  # `shutil` asks the first descriptor, which may be redirected
        return os.get_terminal_size(terminal.fileno()).columns or shutil.get_terminal_size().columns
    return shutil.get_terminal_size().columns
