"""The pictures of a folder, with their classes and splits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dlrun.datasets.files.framing import ENDINGS
from dlrun.datasets.splitting.names import SPELLINGS
from dlrun.errors import DataError
from dlrun.terminal import output
from dlrun.terminal.format import counted


@dataclass(frozen=True)
class Catalogue:
    """Pictures by their paths, each with the number of its class.

    `splits` are the places of each split; only "train" if none is given.
    """

    root: Path
    paths: tuple[Path, ...]
    labels: Tensor
    class_names: tuple[str, ...]
    splits: Mapping[str, Tensor]

    def name(self, place: int) -> str:
        """A picture in messages, seen from the folder."""
        path = self.paths[place]
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


def from_folder(root: Path, *, splits_by_name: bool = True) -> Catalogue:
    """The pictures of a folder a class.

    Classes are sorted by name, as in torchvision's `ImageFolder`, and pictures by their path. Folders called train,
    val or test (…) that hold folders of classes are splits. Raises `DataError` for a folder that is neither.
    """
    folders = subfolders(root)
    places = _splits(root, folders) if splits_by_name else {}
    by_split = {split: _classes(root, subfolders(place)) for split, place in places.items()}
    by_split = by_split or {"train": _classes(root, folders)}
    for split, place in (places or {"train": root}).items():
        _check_classes(place, split, by_split)
    names = tuple(sorted(by_split["train"]))
    rows = [
        (split, file, names.index(name))
        for split, classes in by_split.items()
        for name in sorted(classes)
        for file in classes[name]
    ]
    return assemble(root, rows, names)


def assemble(root: Path, rows: Sequence[tuple[str, Path, int]], names: tuple[str, ...]) -> Catalogue:
    """A catalogue of rows (split, path, class)."""
    found = list(dict.fromkeys(split for split, _, _ in rows))
    return Catalogue(
        root,
        tuple(path for _, path, _ in rows),
        torch.tensor([label for _, _, label in rows], dtype=torch.int64),
        names,
        {name: torch.tensor([i for i, (split, _, _) in enumerate(rows) if split == name]) for name in found},
    )


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, without hidden ones; links are followed."""
    return sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))


def pictures_in(folder: Path) -> list[Path]:
    """The pictures under a folder, sorted by path; hidden ones are left out."""
    return sorted(path for path in _files(folder) if path.suffix.lower() in ENDINGS)


def _files(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        # in place: os.walk does not go into folders taken out here
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(here, name)
            # a link to nothing is named with the damaged files
            if not name.startswith(".") and (path.is_file() or (path.is_symlink() and not path.exists())):
                yield path


def _splits(root: Path, folders: Sequence[Path]) -> dict[str, Path]:
    """The folders of the splits, training first; empty if the folders are classes."""
    found: dict[str, Path] = {}
    for folder in folders:
        split = SPELLINGS.get(folder.name.lower())
        # a class may be called `train` too: a split has folders, and no pictures beside them
        if split is None or not subfolders(folder) or _has_pictures(folder):
            continue
        if split in found:
            raise DataError(
                f"{found[split]} and {folder} both look like the {split} split. Leave one of them in {root}, or type "
                "dataset.splits_by_name=false if they are classes."
            )
        found[split] = folder
    rest = [folder.name for folder in folders if folder not in found.values() and pictures_in(folder)]
    if found and (rest or "train" not in found):
        told = ", ".join(folder.name for folder in found.values())
        others = f"the folders {', '.join(rest[:4])}" if rest else "no folder for training"
        raise DataError(
            f"{root} has folders of classes in {told}, as splits have, and {others}.\nIf they are splits, each needs a "
            f"folder a class: move what is none out of {root}.\nIf all are classes, type dataset.splits_by_name=false."
        )
    return {split: found[split] for split in ("train", "validation", "test") if split in found}


def _classes(root: Path, folders: Iterable[Path]) -> dict[str, list[Path]]:
    """The pictures of each folder."""
    found, others = {}, []
    for folder in folders:
        files = sorted(_files(folder))
        found[folder.name] = [path for path in files if path.suffix.lower() in ENDINGS]
        others += [path for path in files if path.suffix.lower() not in ENDINGS]
    if others:
        kinds = ", ".join(sorted({path.suffix or path.name for path in others})[:5])
        output.warn(
            f"{counted(len(others), 'file')} in {root} {'is' if len(others) == 1 else 'are'} no picture ({kinds}) and "
            f"left out, the first: {others[0].relative_to(root)}. Pictures are {', '.join(ENDINGS)}."
        )
    return found


def _check_classes(place: Path, split: str, by_split: Mapping[str, Mapping[str, list[Path]]]) -> None:
    classes = by_split[split]
    if not classes:
        advice = (
            "Its pictures lie in no folder of a class: make one a class, or give a table of names and labels, "
            "dataset.labels=labels.csv"
            if _has_pictures(place)
            else f"Expected are folders of pictures ({', '.join(ENDINGS)}), one a class"
        )
        raise DataError(f"{place} has no folders. {advice}.")
    if empty := [name for name, files in classes.items() if not files]:
        raise DataError(
            f"{place}: {counted(len(empty), 'folder')} ({', '.join(empty[:8])}) with no pictures "
            f"({', '.join(ENDINGS)}). Take them away, or fill them."
        )
    if loose := sum(each.suffix.lower() in ENDINGS and not each.name.startswith(".") for each in place.iterdir()):
        output.warn(f"{counted(loose, 'picture', ',')} in {place} itself, in no folder of a class, left out.")
    if unknown := sorted({*classes} - {*by_split["train"]}):
        raise DataError(
            f"{place} has the class{'es' if len(unknown) > 1 else ''} {', '.join(unknown[:8])}, of which the training "
            f"split has no folder; its classes are {', '.join(sorted(by_split['train'])[:12])}."
        )


def _has_pictures(folder: Path) -> bool:
    """Whether a folder itself holds a picture."""
    return any(each.suffix.lower() in ENDINGS and not each.name.startswith(".") for each in folder.iterdir())
