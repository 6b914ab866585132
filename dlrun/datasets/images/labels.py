"""A table of pictures: their names, their labels and perhaps their splits."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlrun.datasets.files.encodings import wide_encoding
from dlrun.datasets.files.framing import ENDINGS
from dlrun.datasets.files.headers import is_number
from dlrun.datasets.images.catalogue import Catalogue, assemble
from dlrun.datasets.language.split_files import SPELLINGS
from dlrun.errors import ConfigError, DataError, did_you_mean
from dlrun.terminal import output
from dlrun.terminal.format import counted

ROLES = ("name", "label", "split")
"""What the columns of a table may be."""

LABELS = ("label", "labels", "class", "class_name", "classname", "category", "target", "y", "species", "breed")
SPLITS = ("split", "set", "subset", "partition", "fold")
"""Names of columns by which these are found, in any case."""

TRIED = 50
"""Rows by which the column of names is found."""


@dataclass(frozen=True)
class _Table:
    path: Path
    root: Path
    header: list[str]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        place = self.header.index(name)
        return [row[place] for row in self.rows]


def from_table(path: Path, root: Path, columns: Mapping[str, str] | None) -> Catalogue:
    """The pictures that a table names, in the order of its rows.

    Names are paths seen from `root`; an ending may be missing. `columns` says which column is the name, the label and
    the split, where they are not found. Classes are sorted, whole numbers by their value. Raises `DataError` that lists
    the names without a picture.
    """
    table = _read(path, root)
    chosen = _choose(table, dict(columns or {}))
    names, labels = table.column(chosen["name"]), table.column(chosen["label"])
    splits = _splits(table, chosen.get("split"))
    found = _find(table, names)
    first: dict[Path, int] = {}
    for place, file in enumerate(found):
        other = first.setdefault(file, place)
        if (labels[other], splits[other]) != (labels[place], splits[place]):
            raise DataError(
                f"{path}: lines {other + 2} and {place + 2} both name {names[place]}, with `{labels[other]}` and "
                f"`{labels[place]}`, for {splits[other]} and {splits[place]}. Leave one of them."
            )
    if twice := len(found) - len(first):
        output.warn(f"{path} names {counted(twice, 'picture')} again, with the same label: each is taken once.")
    classes = _classes(table, chosen["label"], labels)
    kept = sorted(first.values(), key=lambda place: ("train", "validation", "test").index(splits[place]))
    unknown = sorted({labels[p] for p in kept} - {labels[p] for p in kept if splits[p] == "train"})
    if unknown:
        raise DataError(f"{path}: no training picture has the label {', '.join(map(repr, unknown[:8]))}.")
    return assemble(root, [(splits[p], found[p], classes.index(labels[p])) for p in kept], classes)


def _read(path: Path, root: Path) -> _Table:
    with path.open("rb") as file:
        if encoding := wide_encoding(file.read(256)):
            raise DataError(f"{path} is {encoding}. Type iconv -f {encoding.lower()} -t utf-8 {path} > new.csv.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as text:
            first = text.readline()
            text.seek(0)
            delimiter = max(",\t;", key=first.count)
            rows = [[cell.strip() for cell in row] for row in csv.reader(text, delimiter=delimiter) if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table in UTF-8: {error}.") from None
    if len(rows) < 2:
        raise DataError(f"{path} has {counted(len(rows), 'line')}; expected a header and a line for each picture.")
    header = rows[0]
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise DataError(f"{path}, line {number} has {len(row)} cells; the header has {len(header)}.")
    if len({*header}) < len(header):
        raise DataError(f"{path} has two columns of one name: {', '.join(header)}.")
    return _Table(path, root, header, rows[1:])


def _choose(table: _Table, given: dict[str, str]) -> dict[str, str]:
    """The column of each role."""
    listed = ", ".join(table.header)
    for role, name in given.items():
        if role not in ROLES:
            hint = did_you_mean(role, ROLES)
            raise ConfigError(f"dataset.columns has no `{role}`.{hint} Valid are {', '.join(ROLES)}.")
        if name not in table.header:
            raise DataError(f"{table.path} has no column `{name}`.{did_you_mean(name, table.header)} It has {listed}.")
    chosen = dict(given)
    if "name" not in chosen:
        chosen["name"] = _name_column(table)
    left = [name for name in table.header if name not in chosen.values()]
    splits = [name for name in left if name.lower() in SPLITS and _is_of_splits(table.column(name))]
    if "split" not in chosen and splits:
        chosen["split"] = splits[0]
        left.remove(splits[0])
    if "label" not in chosen:
        known = left if len(left) == 1 else [name for name in left if name.lower() in LABELS]
        if len(known) != 1:
            raise DataError(
                f"{table.path} has the columns {listed}: which one is the label? Type for example "
                f"'dataset.columns={{label: {(known or left or ['label'])[0]}}}'."
            )
        chosen["label"] = known[0]
    return chosen


def _is_of_splits(cells: Sequence[str]) -> bool:
    return all(cell.lower() in SPELLINGS for cell in {*cells})


def _name_column(table: _Table) -> str:
    """The column whose cells are pictures."""
    some = _Table(table.path, table.root, table.header, table.rows[:TRIED])
    counts = {name: sum(_locate(table.root, cell) is not None for cell in some.column(name)) for name in table.header}
    best = max(counts, key=lambda name: counts[name])
    if not counts[best]:
        raise DataError(
            f"{table.path}: no cell of its first lines is a picture in {table.root}. Give the folder of the pictures, "
            f"dataset.path=FOLDER; the columns are {', '.join(table.header)}, the first line is "
            f"{', '.join(table.rows[0][:6])}."
        )
    return best


def _locate(root: Path, name: str) -> Path | None:
    if not name:
        return None
    path = root / name
    if path.suffix.lower() in ENDINGS and path.is_file():
        return path
    # tables of competitions give names without an ending
    return next((found for ending in ENDINGS if (found := path.with_name(path.name + ending)).is_file()), None)


def _find(table: _Table, names: Sequence[str]) -> list[Path]:
    found = [_locate(table.root, name) for name in names]
    if missing := [(place, name) for place, (name, path) in enumerate(zip(names, found, strict=True)) if path is None]:
        listed = "\n".join(f"  line {place + 2}: {name}" for place, name in missing)
        count = counted(len(missing), "picture", ",")
        raise DataError(f"{table.path} names {count} that {table.root} does not hold:\n{listed}")
    return [path for path in found if path is not None]


def _splits(table: _Table, column: str | None) -> list[str]:
    """The split of each row."""
    if column is None:
        return ["train"] * len(table.rows)
    cells = table.column(column)
    if odd := sorted({cell for cell in cells if cell.lower() not in SPELLINGS}):
        raise DataError(
            f"{table.path}: the column `{column}` has {', '.join(map(repr, odd[:5]))}; a split is train, val or test."
        )
    splits = [SPELLINGS[cell.lower()] for cell in cells]
    if "train" not in splits:
        raise DataError(f"{table.path}: the column `{column}` has no row for training.")
    return splits


def _classes(table: _Table, column: str, labels: Sequence[str]) -> tuple[str, ...]:
    counts = Counter(labels)
    if "" in counts:
        raise DataError(f"{table.path}, line {labels.index('') + 2} has no label in the column `{column}`.")
    numbers = all(is_number(label) for label in counts)
    whole = all(label.lstrip("+-").isdigit() for label in counts)
    if numbers and not whole:
        raise DataError(
            f"{table.path}: the column `{column}` has numbers such as {next(iter(counts))}, and classes are expected. "
            "For another column type 'dataset.columns={label: NAME}'; to predict numbers of pictures, write a data set "
            "of your own (docs/own_parts.md)."
        )
    return tuple(sorted(counts, key=int if whole else None))
