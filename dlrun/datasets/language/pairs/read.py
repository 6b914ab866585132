"""Pairs of texts in files: two files line by line, lines with tabs, tables, JSON lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlrun.datasets.files.tabular.roles import choose_columns
from dlrun.datasets.files.tabular.text_table import TextTable
from dlrun.datasets.language.json_lines import is_json_lines
from dlrun.datasets.language.labelled import read_table
from dlrun.datasets.language.lines import read_lines
from dlrun.errors import DataError
from dlrun.terminal import output
from dlrun.terminal.format import counted

ROLES: Mapping[str, Sequence[str]] = {
    "source": ("source", "src", "input", "source_text", "input_text"),
    "target": ("target", "tgt", "trg", "output", "translation", "target_text", "output_text"),
    "split": ("split", "set", "subset", "partition"),
}
"""What the columns of a table may be, and names by which they are found, in any case."""


@dataclass(frozen=True)
class Pairs:
    """The texts of a file; `lines` are their numbers, `splits` the cells of a column of splits."""

    path: Path
    source: Sequence[str]
    target: Sequence[str]
    lines: Sequence[int]
    splits: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.source)


def read_pairs(paths: Sequence[Path], columns: Mapping[str, str | int], *, skip_empty: bool) -> Pairs:
    """The pairs of one file, or of two that have the same number of lines.

    Texts have no white space around them. Raises `DataError` for files that do not fit, and unless they are skipped
    for empty texts.
    """
    named = {role: str(name) for role, name in columns.items()}
    found = _of_table(paths[0], named) if len(paths) == 1 else _parallel(*paths)
    return _without_empty(found, skip=skip_empty)


def read_sources(path: Path, columns: Mapping[str, str | int]) -> list[str]:
    """The source texts of a file: of a table or JSON lines a column, of another file its lines."""
    named = {role: str(name) for role, name in columns.items()}
    if path.suffix.lower() == ".csv" or is_json_lines(path):
        table = read_table(path)
    elif path.suffix.lower() == ".tsv":
        table = _tabbed(path, named)
    else:
        return [*map(str.strip, read_lines(path))]
    of_source = {role: name for role, name in named.items() if role == "source"}
    if not of_source and table.header[0] == "0":
        of_source = {"source": "0"}
    chosen = choose_columns(table, {"source": ROLES["source"]}, of_source)
    return [text.strip() for text in table.column(chosen["source"])]


def _parallel(source: Path, target: Path) -> Pairs:
    ours, theirs = read_lines(source), read_lines(target)
    if len(ours) != len(theirs):
        raise DataError(
            f"{source} has {counted(len(ours), 'line', ',')} and {target} {len(theirs):,}: expected as many, for line "
            "by line they are pairs."
        )
    if not ours:
        raise DataError(f"{source} has no lines.")
    return Pairs(source, [*map(str.strip, ours)], [*map(str.strip, theirs)], range(1, len(ours) + 1))


def _of_table(path: Path, columns: Mapping[str, str]) -> Pairs:
    if path.suffix.lower() == ".csv" or is_json_lines(path):
        table = read_table(path)
    else:
        table = _tabbed(path, columns)
        if not columns and table.header == ["0", "1"]:
            columns = {"source": "0", "target": "1"}
    chosen = choose_columns(table, ROLES, columns)
    source, target = ([text.strip() for text in table.column(chosen[role])] for role in ("source", "target"))
    splits = table.column(chosen["split"]) if "split" in chosen else None
    return Pairs(path, source, target, table.lines, splits)


def _tabbed(path: Path, columns: Mapping[str, str]) -> TextTable:
    """Lines of texts with tabs between, quotes as they are; without a header the columns are "0", "1" and so on.

    The first line is a header if it has the names of `columns`, or two of `ROLES`.
    """
    lines = read_lines(path)
    rows = [line.split("\t") for line in lines]
    numbers = [number for number, line in enumerate(lines, 1) if line.strip()]
    rows = [rows[number - 1] for number in numbers]
    if not rows:
        raise DataError(f"{path} has no lines.")
    if len(rows[0]) < 2:
        raise DataError(
            f"{path}, line {numbers[0]} has no tab: expected a source and a target text with a tab between. For two "
            f"files, line by line, type 'dataset.train_path=[{path.name},OTHER]'."
        )
    first = [cell.strip() for cell in rows[0]]
    known = [cell for cell in first if any(cell.lower() in names for names in ROLES.values())]
    headed = ({*columns.values()} <= {*first} and bool(columns)) or len(known) > 1
    header = first if headed else [str(place) for place in range(len(first))]
    rows, numbers = (rows[1:], numbers[1:]) if headed else (rows, numbers)
    for number, row in zip(numbers, rows, strict=True):
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {number} has {counted(len(row), 'text')} with tabs between; the first has {len(header)}."
            )
    quoted = next((n for n, row in zip(numbers, rows, strict=True) if any(map(_is_quoted, row))), None)
    if quoted is not None:
        output.warn(
            f"{path}, line {quoted} has quotes doubled within quotes, which are part of the text here. If they are "
            "those of a table, call the file .csv."
        )
    return TextTable(path, header, rows, numbers)


def _is_quoted(cell: str) -> bool:
    return len(cell) > 2 and cell[0] == cell[-1] == '"' and '""' in cell[1:-1]


def _without_empty(found: Pairs, *, skip: bool) -> Pairs:
    empty = [i for i, pair in enumerate(zip(found.source, found.target, strict=True)) if not all(pair)]
    if not empty:
        return found
    if not skip:
        side = "target" if found.source[empty[0]] else "source"
        raise DataError(
            f"{found.path}, line {found.lines[empty[0]]} has an empty {side}, one of "
            f"{counted(len(empty), 'such line', ',')}. To leave them out type dataset.skip_empty=true."
        )
    output.say(f"{counted(len(empty), 'pair', ',')} of {found.path} left out: a text is empty")
    gone = {*empty}
    kept = [i for i in range(len(found)) if i not in gone]
    if not kept:
        raise DataError(f"{found.path} has no pair of two texts.")
    splits = None if found.splits is None else [found.splits[i] for i in kept]
    source, target = ([side[i] for i in kept] for side in (found.source, found.target))
    return Pairs(found.path, source, target, [found.lines[i] for i in kept], splits)
