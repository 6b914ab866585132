"""Tables of texts: a CSV with a header, or JSON lines."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlrun.datasets.columns.column import MISSING, one_writing
from dlrun.datasets.files.encodings import refuse_wide
from dlrun.datasets.files.headers import is_number
from dlrun.errors import DataError
from dlrun.terminal import output
from dlrun.terminal.format import counted

LONGEST = 1 << 27
"""Characters of a cell."""


@dataclass(frozen=True)
class TextTable:
    """The cells of a table as texts; `lines` are the numbers of its rows."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: Sequence[int]
    nested: frozenset[str] = frozenset()
    """Columns with lists or records, which are neither texts nor labels."""

    def column(self, name: str) -> list[str]:
        """The cells of a column; raises `DataError` for one of lists or records."""
        if name in self.nested:
            raise DataError(f"{self.path}: the field `{name}` has lists or records; expected are texts or numbers.")
        place = self.header.index(name)
        return [row[place] for row in self.rows]


def read_csv(path: Path) -> TextTable:
    """Read a table with a header, its cells separated by commas, tabs or semicolons.

    Raises `DataError` for a table without rows, and names the first line of another length.
    """
    with path.open("rb") as file:
        refuse_wide(path, file.read(256))
    rows, lines = _rows(path)
    if len(rows) < 2:
        raise DataError(f"{path} has {counted(len(rows), 'line')}; expected a header and a line for each sample.")
    header = rows[0]
    for number, row in zip(lines[1:], rows[1:], strict=True):
        if len(row) != len(header):
            raise DataError(f"{path}, line {number} has {counted(len(row), 'cell')}; the header has {len(header)}.")
    if len({*header}) < len(header):
        raise DataError(f"{path} has two columns of one name: {', '.join(header)}.")
    return TextTable(path, header, rows[1:], lines[1:])


def _rows(path: Path) -> tuple[list[list[str]], list[int]]:
    """The rows, the header too, and the last line of each."""
    found: list[list[str]] = []
    lines: list[int] = []
    # a text may be longer than Python's module takes by default
    before = csv.field_size_limit(LONGEST)
    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            first = next((line for line in text if line.strip()), "")
            text.seek(0)
            # strict: a quote that is not closed would make one cell of all lines up to the next
            for row in (reader := csv.reader(text, delimiter=max(",\t;", key=first.count), strict=True)):
                found.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read as a table in UTF-8: {error}.") from None
    except csv.Error as error:
        raise DataError(
            f"{path}, line {lines[-1] + 1 if lines else 1} cannot be read ({error}): a cell that begins with a quote "
            'ends with one, and has two of them for each within, as "the ""best"" film".'
        ) from None
    finally:
        csv.field_size_limit(before)
    _say_of_empty(path, found)
    filled = [place for place, row in enumerate(found) if any(row)]
    inside = slice(filled[0], filled[-1] + 1) if filled else slice(0)
    found, lines = found[inside], lines[inside]
    # of one column, an empty line is an empty text: predictions have the order of the rows
    kept = [place for place, row in enumerate(found) if row or len(found[0]) == 1]
    return [found[place] or [""] for place in kept], [lines[place] for place in kept]


def _say_of_empty(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Say how many rows are left out before the first and behind the last one with a text: they have cells."""
    filled = [place for place, row in enumerate(rows) if any(row)]
    outside = [*rows[: filled[0]], *rows[filled[-1] + 1 :]] if filled else []
    if empty := sum(map(bool, outside)):
        output.say(f"{counted(empty, 'row', ',')} of empty cells at the ends of {path} left out")


def class_column(table: TextTable, column: str) -> list[str]:
    """The labels of a column, without blanks around them.

    Whole numbers are written alike, so that 1 and 01 are one class, unless all have the same number of digits.
    """
    labels = [cell.strip() for cell in table.column(column)]
    return one_writing(labels) if all(map(str.isdecimal, labels)) else labels


def class_names(table: TextTable, column: str, labels: Sequence[str]) -> tuple[str, ...]:
    """The classes of labels, sorted; whole numbers by their value.

    Raises `DataError` for a row without a label, and for numbers that are no classes.
    """
    counts = Counter(labels)
    if "" in counts:
        line = table.lines[labels.index("")]
        raise DataError(f"{table.path}, line {line} has no label in the column `{column}`.")
    for text in sorted({*counts} & {*MISSING}):
        rows = counted(counts[text], "row", ",")
        output.warn(
            f"{table.path}: `{text}`, the label of {rows}, is taken for a class. If it is missing, leave them out."
        )
    whole = all(label.lstrip("+-").isdecimal() for label in counts)
    if not whole and all(is_number(label) for label in counts):
        raise DataError(
            f"{table.path}: the column `{column}` has numbers such as {next(iter(counts))}, and classes are expected. "
            "For another column type 'dataset.columns={label: NAME}'; to predict numbers, write a data set of your own "
            "(docs/own_parts.md)."
        )
    return tuple(sorted(counts, key=int if whole else None))
