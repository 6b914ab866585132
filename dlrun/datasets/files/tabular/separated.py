"""A table in a text file: cells between commas, semicolons or tabs; all of them as texts."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from dlrun.datasets.files.encodings import refuse_wide
from dlrun.datasets.files.headers import is_number
from dlrun.errors import DataError
from dlrun.storage.files.unpacked import open_packed
from dlrun.terminal import output

UNNAMED = "unnamed: "
"""Before the number of a column that the header has no name for, as the index of a table of pandas."""

_LONGEST = 1 << 22
"""Bytes of a header."""
_LONGEST_CELL = 1 << 27


def read(path: Path, *, header: bool = True) -> dict[str, Any]:
    """The columns of a CSV or TSV file, texts as they are in it."""
    first, delimiter = _first_row(path)
    names = _names(path, first) if header else [f"column_{i + 1}" for i in range(len(first))]
    with open_packed(path) as file:
        file.seek(_begin(file))
        if len(names) == 1:
            # an empty line is a missing value here, but for those at the end
            file = io.BytesIO(file.read().rstrip(b"\r\n"))
        found = parse(path, file, names, delimiter=delimiter, skip=header)
    _check_quotes(path, found, delimiter)
    return found


def parse(
    path: Path, file: IO[bytes], names: Sequence[str], *, delimiter: str, skip: bool, quote: str = '"'
) -> dict[str, Any]:
    """The cells of an open file as columns with `names`, all of them texts.

    With `skip` its first row is a header. Raises `DataError` for a row with another number of cells, and for what is
    no UTF-8.
    """
    import pyarrow as pa
    from pyarrow import csv as reader

    numbers = [str(i) for i in range(len(names))]  # names may not be unique yet
    try:
        table = reader.read_csv(
            file,
            read_options=reader.ReadOptions(column_names=numbers, skip_rows_after_names=int(skip), use_threads=False),
            parse_options=reader.ParseOptions(
                delimiter=delimiter,
                quote_char=quote,
                # ARFF has 'it\'s', CSV "it's"
                escape_char="\\" if quote == "'" else False,
                newlines_in_values=True,
                ignore_empty_lines=len(names) > 1,
            ),
            convert_options=reader.ConvertOptions(
                column_types=dict.fromkeys(numbers, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0].removeprefix("CSV parse error: ")
        if "UTF8" in reason:
            raise DataError(
                f"{path} is no UTF-8. Save it as CSV UTF-8, or type for example "
                f"iconv -f latin1 -t utf-8 {path} > new.csv"
            ) from None
        raise DataError(f"{path}: {reason[:200]}. Each row has as many cells as the first.") from None
    return named(path, names, [column.combine_chunks() for column in table.columns])


def named(path: Path, names: Sequence[str], columns: Sequence[Any]) -> dict[str, Any]:
    """Columns by their names; raises `DataError` for two of one name."""
    names = [name or f"{UNNAMED}{i + 1}" for i, name in enumerate(names)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path} has two columns `{twice[0]}`. Give each a name of its own.")
    return dict(zip(names, columns, strict=True))


def _names(path: Path, first: Sequence[str]) -> list[str]:
    names = [name.strip() or f"{UNNAMED}{i + 1}" for i, name in enumerate(first)]
    if all(is_number(name) for name in names):
        raise DataError(
            f"The first line of {path} has numbers only ({', '.join(names[:4])}{' …' * (len(names) > 4)}); expected "
            "are the names of the columns. If it is a row, type dataset.header=false: the columns are then column_1, …"
        )
    if numbers := [name for name in names if is_number(name)]:
        output.say(
            f"The first line of {path} is taken for the names of the columns, {', '.join(numbers[:3])} too. If it is a "
            "row, type dataset.header=false."
        )
    return names


def _first_row(path: Path) -> tuple[list[str], str]:
    """The cells of the first row, and what is between them."""
    with open_packed(path) as file:
        start = file.read(256)
        refuse_wide(path, start)
        file.seek(_begin(file))
        # a quoted name may have several lines
        lines = io.StringIO(file.read(_LONGEST).decode("utf-8", errors="replace"), newline="")
    if not lines.readline().strip():
        raise DataError(f"{path} is empty.")
    tabs = path.name.lower().removesuffix(".gz").endswith(".tsv")
    delimiter = "\t" if tabs else max(",;\t|", key=lambda mark: len(_cells(lines, mark)))
    if delimiter not in ",\t":
        output.say(f"{path}: its cells are separated by `{delimiter}`.")
    return _cells(lines, delimiter), delimiter


def _begin(file: IO[bytes]) -> int:
    """The place of the first line that is not empty, behind the mark that spreadsheets write."""
    place = file.seek(0)
    for line in file:
        content = line.removeprefix(codecs.BOM_UTF8) if not place else line
        if content.strip():
            return place + len(line) - len(content.lstrip(b"\r\n"))
        place += len(line)
    return 0


def _check_quotes(path: Path, found: Mapping[str, Any], delimiter: str) -> None:
    """Raise `DataError` where a quote is not closed: the rows up to the next one would be a part of its cell."""
    import pyarrow.compute as pc

    if not any(pc.any(pc.match_substring(cells, "\n")).as_py() for cells in found.values()):
        return
    with open_packed(path) as file:
        rows = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), delimiter=delimiter, strict=True)
        before = csv.field_size_limit(_LONGEST_CELL)
        last = 0
        try:
            for _ in rows:
                last = rows.line_num
        except csv.Error:
            raise DataError(
                f'{path}: the row at line {last + 1} has a quote (") that is not closed, and takes later rows into '
                'its cell. A quote within a cell is two of them, and the cell is quoted: "5"" pipe".'
            ) from None
        finally:
            csv.field_size_limit(before)


def _cells(lines: IO[str], delimiter: str) -> list[str]:
    """The cells of the first row."""
    lines.seek(0)
    return next(csv.reader(lines, delimiter=delimiter), [])
