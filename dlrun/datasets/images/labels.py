"""A table of pictures: their names, their labels and perhaps their splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dlrun.datasets.files.framing import ENDINGS
from dlrun.datasets.files.tabular.roles import choose_columns
from dlrun.datasets.files.tabular.text_table import TextTable, class_column, class_names, read_csv
from dlrun.datasets.images.catalogue import Catalogue, assemble, pictures_in
from dlrun.datasets.splitting.names import SPELLINGS
from dlrun.errors import DataError
from dlrun.terminal import output
from dlrun.terminal.format import counted

ROLES = {
    "name": (),
    "label": ("label", "labels", "class", "class_name", "classname", "category", "target", "y", "species", "breed"),
    "split": ("split", "set", "subset", "partition", "fold"),
}
"""What the columns of a table may be, and names by which they are found, in any case."""

TRIED = 50
"""Rows by which the column of names is found."""


def from_table(path: Path, root: Path, columns: Mapping[str, str] | None) -> Catalogue:
    """The pictures that a table names, in the order of its rows.

    Names are paths seen from `root`; an ending may be missing. `columns` says which column is the name, the label and
    the split, where they are not found. Classes are sorted, whole numbers by their value. Raises `DataError` that lists
    the names without a picture.
    """
    table = read_csv(path)
    given = dict(columns or {})
    name = {} if "name" in given else {"name": _name_column(table, root)}
    chosen = choose_columns(table, ROLES, given | name)
    names, labels = table.column(chosen["name"]), class_column(table, chosen["label"])
    splits = _splits(table, chosen.get("split"))
    found = _find(table, root, names)
    first: dict[Path, int] = {}
    for place, file in enumerate(found):
        other = first.setdefault(file, place)
        if (labels[other], splits[other]) != (labels[place], splits[place]):
            raise DataError(
                f"{path}: lines {table.lines[other]} and {table.lines[place]} both name {names[place]}, with "
                f"`{labels[other]}` and `{labels[place]}`, for {splits[other]} and {splits[place]}. Leave one of them."
            )
    if twice := len(found) - len(first):
        output.warn(f"{path} names {counted(twice, 'picture')} again, with the same label: each is taken once.")
    if unlisted := sorted({*pictures_in(root)} - {*first}):
        output.warn(
            f"{counted(len(unlisted), 'picture', ',')} in {root} left out, which {path} does not name, the first: "
            f"{unlisted[0].relative_to(root)}."
        )
    classes = class_names(table, chosen["label"], labels)
    kept = sorted(first.values(), key=lambda place: ("train", "validation", "test").index(splits[place]))
    unknown = sorted({labels[p] for p in kept} - {labels[p] for p in kept if splits[p] == "train"})
    if unknown:
        raise DataError(f"{path}: no training picture has the label {', '.join(map(repr, unknown[:8]))}.")
    return assemble(root, [(splits[p], found[p], classes.index(labels[p])) for p in kept], classes)


def _name_column(table: TextTable, root: Path) -> str:
    """The column whose cells are pictures."""
    counts = {
        name: sum(_locate(root, cell) is not None for cell in table.column(name)[:TRIED]) for name in table.header
    }
    best = max(counts, key=lambda name: counts[name])
    if not counts[best]:
        raise DataError(
            f"{table.path}: no cell of its first lines is a picture in {root}. Give the folder of the pictures, "
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


def _find(table: TextTable, root: Path, names: Sequence[str]) -> list[Path]:
    found = [_locate(root, name) for name in names]
    if missing := [(place, name) for place, (name, path) in enumerate(zip(names, found, strict=True)) if path is None]:
        listed = "\n".join(f"  line {table.lines[place]}: {name}" for place, name in missing)
        count = counted(len(missing), "picture", ",")
        raise DataError(f"{table.path} names {count} that {root} does not hold:\n{listed}")
    return [path for path in found if path is not None]


def _splits(table: TextTable, column: str | None) -> list[str]:
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
