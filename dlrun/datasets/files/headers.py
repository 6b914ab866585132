"""The first line of a table: a header, whose columns are matched by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlrun.errors import DataError, did_you_mean
from dlrun.terminal import output
from dlrun.terminal.format import counted

# Python's float takes more: 1_000, nan, digits of other scripts
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# as 0,5 or 1_000 or 0.1<tab>0.2: no name, and no number either
_LIKE_NUMBERS = re.compile(r"[\d+\-.,;:_eE'%\s]*\d[\d+\-.,;:_eE'%\s]*")
_MISSING = {"", "na", "n/a", "nan", "null", "none", "inf", "-inf", "+inf", "infinity", "-", "?"}


@dataclass(frozen=True)
class Columns:
    """The columns of a table.

    `count` cells a line, of which `places` are read in that order; empty: all as they come.
    """

    count: int
    names: tuple[str, ...] = ()
    places: tuple[int, ...] = ()

    def pick(self, cells: list[str]) -> list[str]:
        """The cells that are read, in their order."""
        return [cells[place] for place in self.places] if self.places else cells

    def name(self, place: int) -> str:
        """A column in messages."""
        called = f" (`{self.names[place]}`)" if self.names else ""
        return f"column {place + 1}{called}"


def is_number(text: str) -> bool:
    """Whether a text is a finite decimal number, with a point."""
    return _NUMBER.fullmatch(text.strip()) is not None


def header(cells: Sequence[str], names: Sequence[str]) -> tuple[str, ...] | None:
    """The names in a first line; None if it is a sample.

    A header has texts only, or all of `names`. A missing value is no name: it is refused where the samples are.

    >>> header(["x", "y"], ()), header(["0.1", ""], ()), header(["1", "0"], ["0", "1"])
    (('x', 'y'), None, ('1', '0'))
    """
    stripped = tuple(cell.strip() for cell in cells)
    if names and {*names} <= {*stripped}:
        return stripped
    if any(_LIKE_NUMBERS.fullmatch(cell) for cell in stripped):
        return None
    # with known names, the nameless column of an index is passed over
    lacking = [cell for cell in stripped if cell.lower() in _MISSING and not (names and cell == "")]
    return None if lacking or not any(stripped) else stripped


def match(path: Path, found: tuple[str, ...], names: Sequence[str], width: int) -> Columns:
    """The columns of a header by the names that a run keeps.

    Raises `DataError` for names that are missing or stand twice. Without kept names the columns are taken in their
    order, and a line says so.
    """
    listed = ", ".join(f"`{name}`" for name in found[:8]) + (" …" if len(found) > 8 else "")
    if twice := sorted({name for name in found if found.count(name) > 1 and (name in names or not names)}):
        raise DataError(f"{path} has two columns `{twice[0]}`.")
    if not names:
        if len(found) != width:
            raise DataError(
                f"{path} has {counted(len(found), 'column')} ({listed}); a sample of this run has {width} numbers."
            )
        output.warn(f"The run keeps no column names: the columns of {path} ({listed}) are taken in their order.")
        return Columns(len(found), found)
    if missing := [name for name in names if name not in found]:
        raise DataError(
            f"{path} has no column `{missing[0]}`.{did_you_mean(missing[0], found)} The run's inputs are "
            f"{', '.join(names)}; the header is {listed}."
        )
    if extra := [name or "a column without a name" for name in found if name not in names]:
        output.warn(
            f"{path}: {counted(len(extra), 'column')} left out: {', '.join(extra[:8])}{' …' if len(extra) > 8 else ''}."
        )
    return Columns(len(found), found, tuple(found.index(name) for name in names))
