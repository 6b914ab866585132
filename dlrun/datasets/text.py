"""A text of your own: a file, or a folder of files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dlrun.datasets.files.missing import no_such
from dlrun.datasets.language import split_files, text_files
from dlrun.datasets.language.from_text import from_text
from dlrun.datasets.language.json_lines import ENDINGS, is_json_lines
from dlrun.errors import ConfigError, DataError
from dlrun.terminal import output
from dlrun.terminal.format import counted
from dlrun.types import Data, Tokenizer

__all__ = ["text"]


def text(
    *,
    path: str | None = None,
    train_path: str | None = None,
    validation_path: str | None = None,
    test_path: str | None = None,
    splits_by_name: bool = False,
    endings: list[str] | None = None,
    field: str | None = None,
    tokenizer: str | Tokenizer = "byte",
    vocabulary_size: int | None = None,
    context: int = 64,
    stride: int | None = None,
    streams: int | None = None,
    validation_size: int | float = 0.05,
    test_size: int | float = 0.05,
    train_size: int | None = None,
) -> Data:
    """The text of a file or a folder.

    The files of a folder follow one another, sorted by name. `endings`, such as `[.txt, .md]`, choose some, and each
    must be text (UTF-8). Without them all text files are taken, and a line counts the others. Hidden files and folders
    are left out. Of files with JSON lines (.jsonl), the text is that in a `field` of each record.

    Splits are given by their own paths, or with `splits_by_name` by the names of a folder's files (train.txt,
    valid.txt, test.txt); a split without a file is cut from the training text by its size. The further arguments are
    those of `from_text`. Raises `DataError` for a path that does not exist, is empty or no text, and for a file in two
    splits.
    """
    if path is not None and train_path is not None:
        raise ConfigError("dataset.path and dataset.train_path are both the training text. Give one of them.")
    given = {"train": train_path or path, "validation": validation_path, "test": test_path}
    if given["train"] is None:
        raise ConfigError("dataset=text needs a file or a folder. Type for example dataset.path=book.txt.")
    names = {"train": "path" if path else "train_path", "validation": "validation_path", "test": "test_path"}
    places = {split: Path(place).expanduser().absolute() for split, place in given.items() if place is not None}
    paths = {split: _find(place, endings, names[split]) for split, place in places.items()}
    where = places["train"]
    if splits_by_name and len(places) == 1 and where.is_dir():
        paths = split_files.splits_by_name(where, paths["train"]) or paths
        if len(paths) > 1:
            _report_splits(where, paths)
    _check_apart(paths)
    _check_field([file for files in paths.values() for file in files], field)
    texts = {
        split: _collect(
            files, places.get(split, where), endings, names[split] if split in places else "path", field=field
        )
        for split, files in paths.items()
    }
    return from_text(
        "text",
        texts["train"],
        texts.get("validation"),
        texts.get("test"),
        tokenizer=tokenizer,
        vocabulary_size=vocabulary_size,
        context=context,
        stride=stride,
        streams=streams,
        # a split with files of its own is not cut from the training text
        validation_size=0 if "validation" in texts else validation_size,
        test_size=0 if "test" in texts else test_size,
        train_size=train_size,
        notes={"path": str(where), "files": sum(len(each.paths) for each in texts.values())},
    )


def _collect(
    paths: list[Path], where: Path, endings: list[str] | None, key: str, *, field: str | None
) -> text_files.TextFiles:
    files = text_files.collect(paths, leave_out=where.is_dir() and endings is None, field=field)
    if files.left_out:
        _report_left_out(where, files)
    if not len(files):
        raise DataError(f"dataset.{key}: {_empty_message(where, files)}")
    return files


def _check_field(files: list[Path], field: str | None) -> None:
    """Refuse a field of files without records; say that records are read as they stand."""
    found = next((file for file in files if is_json_lines(file)), None)
    if field is not None and found is None:
        raise ConfigError(f"dataset.field={field} is of JSON lines; no file ends with {' or '.join(ENDINGS)}.")
    if field is None and found is not None:
        output.warn(
            f"{found} is taken as it stands, its JSON included. For the text in a field of it, type dataset.field=text."
        )


def _check_apart(paths: dict[str, list[Path]]) -> None:
    """Raise `DataError` for a file that is in two splits."""
    seen: dict[Path, str] = {}
    for split, files in paths.items():
        for file in files:
            other = seen.setdefault(file.resolve(), split)
            if other != split:
                raise DataError(f"The file {file} is in the {other} and in the {split} split. Give each text once.")


def _report_splits(where: Path, paths: dict[str, list[Path]]) -> None:
    listed = []
    for split, files in paths.items():
        names = [str(file.relative_to(where)) for file in files]
        listed.append(f"{', '.join(names[:3])}{f' … ({len(names)})' if len(names) > 3 else ''} for {split}")
    output.say(f"Splits by name in {where}: {'; '.join(listed)}. (dataset.splits_by_name=false joins all files.)")


def walk(folder: Path, *, skip: Sequence[str] = ()) -> list[Path]:
    """The files under a folder, sorted, without hidden ones."""
    found = []
    for here, folders, names in os.walk(folder):
        # in place: os.walk does not go into folders taken out here
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in skip)
        found += [Path(here, name) for name in names if not name.startswith(".")]
    # no pipes, sockets or broken links
    return sorted((path for path in found if path.is_file()), key=lambda path: path.relative_to(folder).parts)


def _find(where: Path, endings: list[str] | None, key: str) -> list[Path]:
    if where.is_file():
        return [where]
    if not where.is_dir():
        raise DataError(no_such(f"dataset.{key}", where, "a file or folder of text"))
    files = walk(where)
    chosen = [path for path in files if endings is None or path.name.lower().endswith(tuple(map(str.lower, endings)))]
    if not chosen:
        usual = ", ".join(f"{ending} ({n})" for ending, n in Counter(path.suffix for path in files).most_common(5))
        wanted = "" if endings is None else f" whose name ends with {' or '.join(endings)}"
        raise DataError(
            f"dataset.{key}: the folder {where} has no file{wanted}." + (f" There are: {usual}." if usual else "")
        )
    return chosen


def _report_left_out(where: Path, files: text_files.TextFiles) -> None:
    first, reason = files.left_out[0]
    output.say(
        f"{len(files.left_out)} of {counted(len(files.left_out) + len(files.paths), 'file')} in {where} are not text "
        f"and are left out, the first: {Path(first).relative_to(where)}, where {reason}. "
        "(dataset.endings=[.txt] chooses files.)"
    )


def _empty_message(where: Path, files: text_files.TextFiles) -> str:
    if where.is_file():
        return f"the file {where} is empty."
    return f"no file in the folder {where} has any text ({len(files.left_out)} are not UTF-8, the others are empty)."
