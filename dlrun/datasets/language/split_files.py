"""The files of a folder that are splits by their names, such as train.txt, valid.txt and test.txt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dlrun.datasets.splitting.names import SPELLINGS
from dlrun.errors import DataError

_ABOUT = {"readme", "license", "licence", "copying", "notice", "changelog"}


def splits_by_name(folder: Path, files: Sequence[Path]) -> dict[str, list[Path]] | None:
    """The files of each split; None if none is called a validation or test split.

    A file is a split if its name without endings is one of `SPELLINGS`, or if another split's name differs from it in
    that word alone (ptb.train.txt and ptb.test.txt); so are the files in folders of these names. What a file is about
    (README, LICENSE) belongs to none. Raises `DataError` if other files are left, or none is for training.
    """
    names = {file: file.relative_to(folder) for file in files}
    found = {file: split for file, name in names.items() if (split := _exact(name))}
    found |= _of_alike(names)
    splits: dict[str, list[Path]] = {}
    for file in files:
        if file in found:
            splits.setdefault(found[file], []).append(file)
    if not {"validation", "test"} & {*splits}:
        return None
    rest = [str(name) for file, name in names.items() if file not in found and not _is_about(name)]
    if rest or "train" not in splits:
        raise DataError(_question(folder, {split: [str(names[f]) for f in fs] for split, fs in splits.items()}, rest))
    return splits


def _exact(name: Path) -> str | None:
    return SPELLINGS.get(name.name.lower().partition(".")[0]) if len(name.parts) == 1 else None


def _of_alike(names: Mapping[Path, Path]) -> dict[Path, str]:
    """The splits of names that differ in the word for the split alone."""
    by_template: dict[str, dict[Path, str]] = {}
    for file, name in names.items():
        # a word of the file's name, or the folder it lies in
        whole = name.name if len(name.parts) == 1 else f"{name.parts[0]}/"
        words = re.split(r"([^a-z]+)", whole.lower())
        places = [i for i, word in enumerate(words) if word in SPELLINGS]
        if len(places) == 1:
            split, words[places[0]] = SPELLINGS[words[places[0]]], "*"
            by_template.setdefault(re.sub(r"\d+", "#", "".join(words)), {})[file] = split
    return {f: split for alike in by_template.values() if len({*alike.values()}) > 1 for f, split in alike.items()}


def _is_about(name: Path) -> bool:
    return name.name.lower().partition(".")[0] in _ABOUT


def _question(folder: Path, splits: Mapping[str, Sequence[str]], rest: Iterable[str]) -> str:
    called = ", ".join(name for names in splits.values() for name in names[:2])
    others = ", ".join([*rest][:3]) or "none for training"
    keys = " ".join(f"dataset.{split}_path={folder / names[0]}" for split, names in splits.items())
    keys = keys if "train" in splits else f"dataset.train_path=… {keys}"
    return (
        f"The folder {folder} has files that are called splits ({called}), and others ({others}).\nIf they are splits, "
        f"type {keys}.\nIf all are one text, to be cut by position, type dataset.splits_by_name=false."
    )
