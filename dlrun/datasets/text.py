"""A text of your own: a file, or a folder of files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dlrun.datasets.language import text_files
from dlrun.datasets.language.from_text import from_text
from dlrun.errors import ConfigError, DataError, did_you_mean
from dlrun.terminal import output
from dlrun.types import Data, Tokenizer

__all__ = ["text"]


def text(
    *,
    path: str | None = None,
    endings: list[str] | None = None,
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
    are left out. The further arguments are those of `from_text`. Raises `DataError` for a path that does not exist, is
    empty or no text.
    """
    if path is None:
        raise ConfigError("dataset=text needs a file or a folder. Type for example dataset.path=book.txt.")
    where = Path(path).expanduser().absolute()
    files = text_files.collect(_find(where, endings), leave_out=where.is_dir() and endings is None)
    if files.left_out:
        _report_left_out(where, files)
    if not len(files):
        raise DataError(f"dataset.path={path}: {_empty_message(where, files)}")
    return from_text(
        "text",
        files,
        tokenizer=tokenizer,
        vocabulary_size=vocabulary_size,
        context=context,
        stride=stride,
        streams=streams,
        validation_size=validation_size,
        test_size=test_size,
        train_size=train_size,
        notes={"path": str(where), "files": len(files.paths)},
    )


def walk(folder: Path, *, skip: Sequence[str] = ()) -> list[Path]:
    """The files under a folder, sorted, without hidden ones."""
    found = []
    for here, folders, names in os.walk(folder):
        # in place: os.walk does not go into folders taken out here
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in skip)
        found += [Path(here, name) for name in names if not name.startswith(".")]
    # no pipes, sockets or broken links
    return sorted((path for path in found if path.is_file()), key=lambda path: path.relative_to(folder).parts)


def _find(where: Path, endings: list[str] | None) -> list[Path]:
    if where.is_file():
        return [where]
    if not where.is_dir():
        beside = [other.name for other in where.parent.iterdir()] if where.parent.is_dir() else []
        raise DataError(f"dataset.path: there is no file or folder {where}.{did_you_mean(where.name, beside)}")
    files = walk(where)
    chosen = [path for path in files if endings is None or path.name.lower().endswith(tuple(map(str.lower, endings)))]
    if not chosen:
        usual = ", ".join(f"{ending} ({n})" for ending, n in Counter(path.suffix for path in files).most_common(5))
        wanted = "" if endings is None else f" whose name ends with {' or '.join(endings)}"
        raise DataError(
            f"dataset.path: the folder {where} has no file{wanted}." + (f" There are: {usual}." if usual else "")
        )
    return chosen


def _report_left_out(where: Path, files: text_files.TextFiles) -> None:
    first, reason = files.left_out[0]
    output.say(
        f"{len(files.left_out)} of {len(files.left_out) + len(files.paths)} files in {where} are not text and are left "
        f"out, the first: {Path(first).relative_to(where)}, where {reason}. (dataset.endings=[.txt] chooses files.)"
    )


def _empty_message(where: Path, files: text_files.TextFiles) -> str:
    if where.is_file():
        return f"the file {where} is empty."
    return f"no file in the folder {where} has any text ({len(files.left_out)} are not UTF-8, the others are empty)."
