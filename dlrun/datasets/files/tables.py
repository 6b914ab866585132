"""A table of numbers in a text file: one sample a line, a cell a component."""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NoReturn

import torch
from torch import Tensor

from dlrun.datasets.files.encodings import refuse_wide
from dlrun.datasets.files.headers import Columns, header, is_number, match
from dlrun.errors import DataError
from dlrun.storage.files.unpacked import open_packed
from dlrun.terminal import output

LONGEST = 1 << 16
"""Values that a line may have, unless the samples of the data set have more."""

_PLAIN = re.compile(r"[0-9eE+\-., \t\r\n]*")
_LARGEST = torch.finfo(torch.float32).max


def table_chunks(
    path: Path, delimiter: str | None, *, width: int, size: int, names: Sequence[str] = ()
) -> Iterator[Tensor]:
    """The numbers of a table, float64 [n, width] with at most `size` lines at a time.

    A first line of texts is a header: its columns are matched with `names`, if there are any. The delimiter None
    stands for a comma or blanks. Raises `DataError` that names the line and the column of a cell that is no number.
    """
    table = _Table(path, delimiter, width, tuple(names))
    values = array("d")
    with _open(path) as file:
        for number, line in enumerate(_lines(file, width), 1):
            values.extend(table.take(number, line))
            if len(values) >= size * width:
                yield torch.frombuffer(values, dtype=torch.float64).view(-1, width)
                values = array("d")
    if values:
        yield torch.frombuffer(values, dtype=torch.float64).view(-1, width)


class _Table:
    """The lines of a table, one after another."""

    def __init__(self, path: Path, delimiter: str | None, width: int, names: tuple[str, ...]) -> None:
        self._path, self._delimiter, self._width, self._names = path, delimiter, width, names
        self._columns: Columns | None = None
        self._blank = 0

    def take(self, number: int, line: str) -> list[float]:
        """The numbers of a line: none of a blank line and of the header."""
        if not line.strip():
            self._blank = self._blank or number
            return []
        if self._blank and self._width == 1:
            self._refuse(self._blank, "is empty")
        cells = self._split(line)
        if self._columns is None:
            return self._begin(number, cells, line)
        if len(cells) != self._columns.count:
            self._refuse(number, f"has {_numbers(len(cells))}; the first line has {self._columns.count}")
        return self._convert(number, cells, line)

    def _begin(self, number: int, cells: list[str], line: str) -> list[float]:
        """Take the first line, a header or a sample."""
        found = header(cells, self._names)
        if found is not None:
            self._columns = match(self._path, found, self._names, self._width)
            return []
        if len(cells) != self._width:
            self._refuse(number, f"has {_numbers(len(cells))}; a sample of this run has {self._width}{_hint(cells)}")
        if self._names:
            output.warn(f"{self._path} has no header: its columns are taken as {', '.join(self._names)}.")
        elif cells in ([str(i) for i in range(len(cells))], [str(i + 1) for i in range(len(cells))]) and len(cells) > 1:
            output.warn(f"The first line of {self._path}, {', '.join(cells[:4])} …, is read as a sample, no header.")
        self._columns = Columns(len(cells))
        return self._convert(number, cells, line)

    def _convert(self, number: int, cells: list[str], line: str) -> list[float]:
        assert self._columns is not None
        kept = self._columns.pick(cells)
        # most lines have plain numbers; Python takes more, such as 1_000 and nan
        if _PLAIN.fullmatch(line):
            try:
                numbers = [float(cell) for cell in kept]
            except ValueError:
                pass
            else:
                if all(abs(value) <= _LARGEST for value in numbers):
                    return numbers
        for place, cell in zip(self._columns.places or range(len(cells)), kept, strict=True):
            if problem := _problem(cell):
                self._refuse(number, f"{self._columns.name(place)} {problem}")
        return [float(cell) for cell in kept]

    def _split(self, line: str) -> list[str]:
        """The cells of a line."""
        if self._delimiter is None:
            self._delimiter = "," if "," in line or ";" in line else "\t" if "\t" in line else " "
        if self._delimiter == " ":
            return line.split()
        # line by line: a quoted text cannot make one row of them all
        cells = next(csv.reader([line], delimiter=self._delimiter, strict=True))
        if self._columns is None and self._delimiter == "," and any(";" in cell for cell in cells):
            change = "sed 's/,/./g; s/;/,/g'" if "," in line else "sed 's/;/,/g'"
            raise DataError(
                f"{self._path} has semicolons between its cells{' and decimal commas' if ',' in line else ''}; "
                f"expected are commas, and points in the numbers. Type {change} {self._path} > new.csv."
            )
        return cells

    def _refuse(self, number: int, problem: str) -> NoReturn:
        raise DataError(f"{self._path}, line {number} {problem}.")


def _problem(cell: str) -> str | None:
    """Why a cell is no number, or None."""
    text = cell.strip()
    if not text:
        return "is empty: a missing value has no answer. Fill it, or take the line out"
    if not is_number(text):
        hint = " (write 0.5, not 0,5)" if is_number(text.replace(",", ".", 1)) else ""
        return f"is `{text[:40]}`; expected a finite number{hint}"
    return None if abs(float(text)) <= _LARGEST else f"is {text[:40]}, beyond float32"


def _numbers(count: int) -> str:
    return f"{count} cell{'' if count == 1 else 's'}"


def _hint(cells: Sequence[str]) -> str:
    if len(cells) == 1 and "\t" in cells[0]:
        return " (are tabs between them? Call the file .tsv)"
    return " (is there a comma within a number? Write 0.5, not 0,5)" if len(cells) > 1 and len(cells) % 2 == 0 else ""


def _open(path: Path) -> IO[str]:
    with open_packed(path) as file:
        refuse_wide(path, file.read(256))
    # without the mark that spreadsheets write
    return io.TextIOWrapper(open_packed(path), encoding="utf-8-sig", newline="")


def _lines(file: IO[str], width: int) -> Iterator[str]:
    """The lines of a table; a packed one could have any length."""
    most = 64 * max(width, LONGEST)
    try:
        while line := file.readline(most):
            if len(line) == most:
                raise ValueError(f"a line has more than {most:,} characters")
            yield line
    except UnicodeDecodeError as error:
        raise ValueError(
            f"it is not UTF-8 (byte 0x{error.object[error.start]:02x}). Save it as CSV UTF-8, or convert it, for "
            "example with iconv -f latin1 -t utf-8"
        ) from None
