"""What a person reads while a run goes on: lines, a live line, tables."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TextIO

Screen = Callable[[], AbstractContextManager[None]]
"""A context in which what is said goes where it went when `screen` was entered."""

HEARTBEAT = 30.0
"""Seconds after which a log gets a line of what has no line of its own to end with."""

_logs: list[TextIO] = []
_printed: list[TextIO] = []
"""Those of the logs that get what is printed anyway, for the standard output is that file."""


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """Have what is said appended to a file too, as long as the context lasts."""
    file = path.open("a", encoding="utf-8")
    _logs.append(file)
    if _is_standard_output(path):
        _printed.append(file)
    try:
        yield
    finally:
        _logs.remove(file)
        if file in _printed:
            _printed.remove(file)
        with suppress(OSError):  # a full disk costs lines of the log, nothing else
            file.close()


@contextmanager
def apart() -> Iterator[None]:
    """Have what is said meanwhile appended to none of the files that are kept already."""
    logs, printed = _logs[:], _printed[:]
    _logs.clear()
    _printed.clear()
    try:
        yield
    finally:
        _logs[:], _printed[:] = logs, printed


@contextmanager
def screen() -> Iterator[Screen]:
    """Yield a context that undoes, while it lasts, what has been redirected since: streams, descriptors and logs."""
    logs, printed = _logs[:], _printed[:]
    with ExitStack() as stack:
        out, err = (stack.enter_context(_doubled(stream)) for stream in (sys.stdout, sys.stderr))

        @contextmanager
        def shown() -> Iterator[None]:
            with apart(), redirect_stdout(out), redirect_stderr(err):
                _logs[:], _printed[:] = logs, printed
                yield

        yield shown


@contextmanager
def _doubled(stream: TextIO) -> Iterator[TextIO]:
    """Yield a stream to where this one goes, whatever becomes of its descriptor."""
    try:
        number = os.dup(stream.fileno())
    except (OSError, ValueError):  # a notebook's has none, and cannot lose it
        yield stream
        return
    with os.fdopen(number, "w", buffering=1, encoding=stream.encoding, errors="backslashreplace") as double:
        yield double


class _Nowhere(io.TextIOBase):
    """A stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def unprinted() -> Iterator[None]:
    """Have what is said meanwhile go to the file that `turn_to` names last, and nowhere else."""
    with apart(), redirect_stdout(_Nowhere()), redirect_stderr(_Nowhere()):
        yield


def turn_to(file: TextIO) -> None:
    """Have what is said go to a file, and to no other file, until the context ends that is the innermost now."""
    _logs[:] = [file]


def _is_standard_output(path: Path) -> bool:
    """Return whether what is printed goes to this file, as in a sweep's job."""
    try:
        return os.path.samestat(os.fstat(sys.stdout.fileno()), path.stat())
    except (OSError, ValueError):  # a notebook's is no file
        return False


def note(text: str) -> None:
    """Write a line to the log alone."""
    _write(text, _logs)


def _write(text: str, files: list[TextIO]) -> None:
    for file in files:
        with suppress(OSError):
            file.write(text + "\n")
            file.flush()


def say(text: str = "") -> None:
    """Print a line on the standard output, clearing a live line first."""
    _show(sys.stdout, f"{_cleared(sys.stdout)}{text}\n")
    _write(text, [file for file in _logs if file not in _printed])


def warn(text: str) -> None:
    """Print a line on the standard error that a person should see."""
    _show(sys.stderr, f"{_cleared(sys.stderr)}dlrun: {text}\n")
    _write(text, [file for file in _logs if file not in _printed])


def live(text: str) -> None:
    """Show `text` in place of the live line (on a terminal only)."""
    if sys.stdout.isatty():
        _show(sys.stdout, _cleared(sys.stdout) + text[: _width(sys.stdout) - 1])


def _width(terminal: TextIO) -> int:
    """Return the columns of a terminal: `shutil` asks the first descriptor, which may be redirected."""
    with suppress(OSError, ValueError):
        return os.get_terminal_size(terminal.fileno()).columns or shutil.get_terminal_size().columns
    return shutil.get_terminal_size().columns


def _cleared(stream: TextIO) -> str:
    return "\r\x1b[K" if stream.isatty() else ""


def _show(stream: TextIO, text: str) -> None:
    """Print on a stream; while a log is kept, that nobody reads it any more (`| head`) is no reason to stop."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        if not _logs:
            raise
        _printed.clear()
        with suppress(OSError, ValueError):  # a notebook's is no file
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def table(rows: Sequence[Sequence[str]], *, indent: str = "  ") -> str:
    """Return rows as aligned columns, the first to the left, the others to the right.

    >>> print(table([["", "loss"], ["train", "0.1"]]))
             loss
      train   0.1
    """
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    lines = []
    for row in rows:
        cells = [cell.ljust(widths[i]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(row)]
        lines.append(indent + "  ".join(cells).rstrip())
    return "\n".join(lines)


def number(value: float) -> str:
    """Return a number with six significant digits."""
    return f"{value:.6g}"


def amount(value: float, unit: str = "") -> str:
    """Return a large number with a metric prefix.

    >>> amount(25450), amount(7.1e8, "FLOP")
    ('25.4 k', '710 MFLOP')
    """
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".strip()


def duration(seconds: float) -> str:
    """Return seconds as a person says them.

    >>> duration(0.4), duration(75), duration(7300)
    ('0.4 s', '1 min 15 s', '2 h 01 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
