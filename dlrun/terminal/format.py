"""Tables, numbers and durations as text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from dlrun.terminal.escape import visible


def table(rows: Sequence[Sequence[str]], *, indent: str = "  ") -> str:
    """Aligned columns, the first left, the others right.

    >>> print(table([["", "loss"], ["train", "0.1"]]))
             loss
      train   0.1
    """
    # a cell is one line: no value of a run can write a row of its own
    rows = [[visible(cell).replace("\n", "\\n") for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    lines = []
    for row in rows:
        cells = [cell.ljust(widths[i]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(row)]
        lines.append(indent + "  ".join(cells).rstrip())
    return "\n".join(lines)


def number(value: float) -> str:
    """A number with six significant digits."""
    return f"{value:.6g}"


def ends(least: float, most: float) -> str:
    """The ends of a range, to six digits, or as many as tell the two apart.

    >>> ends(-0.5, 1), ends(1700000012, 1700000990)
    ('-0.5 to 1', '1700000012 to 1700000990')
    """
    for digits in (6, 10, 17):
        low, high = f"{least:.{digits}g}", f"{most:.{digits}g}"
        if low != high:
            break
    return f"{low} to {high}"


def amount(value: float, unit: str = "") -> str:
    """A large number with a metric prefix.

    >>> amount(25450), amount(7.1e8, "FLOP"), amount(999_999)
    ('25.4 k', '710 MFLOP', '1 M')
    """
    value = float(f"{value:.3g}")  # 999,999 would read 1e+03 k
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".strip()


def counted(n: float, noun: str, form: str = "") -> str:
    """A number of things, written in a format.

    >>> counted(1, "seed"), counted(2000, "job"), counted(2000, "parameter", ",")
    ('1 seed', '2000 jobs', '2,000 parameters')
    >>> counted(1.0, "epoch", ".4g"), counted(0.5, "epoch", ".4g")
    ('1 epoch', '0.5 epochs')
    """
    shown = f"{n:{form}}"
    return f"{shown} {noun if shown == '1' else plural(noun)}"


def plural(noun: str, n: int = 2) -> str:
    """The word for so many things.

    >>> plural("target"), plural("target", 1)
    ('targets', 'target')
    """
    return noun if n == 1 else f"{noun}s"


def minute(seconds: float | None) -> str:
    """A time, given in seconds since 1970, to the minute.

    Empty for None, and for a time that no calendar has.

    >>> minute(None), minute(1e30), len(minute(1.8e9))
    ('', '', 16)
    """
    if seconds is None:
        return ""
    try:
        return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return ""


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(0.4), duration(75), duration(7300)
    ('0.4 s', '1 min 15 s', '2 h 01 min')
    """
    if seconds < 59.95:  # 59.97 would read 60.0 s
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
