"""Pairs of texts of your own, as for translation: padded batches of source and target tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from dlrun.datasets.files.missing import no_such
from dlrun.datasets.language.pairs.make import SPLITS, Tokenizing, data_of_pairs
from dlrun.datasets.language.pairs.read import Pairs, read_pairs
from dlrun.datasets.splitting.by_label import DRAWN, split_by_label
from dlrun.datasets.splitting.choose import Splitting
from dlrun.datasets.splitting.cut import SplitOptions, drawn_size
from dlrun.datasets.splitting.names import SPELLINGS
from dlrun.errors import ConfigError, DataError
from dlrun.types import Data, Tokenizer

__all__ = ["text_pairs"]

NAME = "text_pairs"

Place = str | list[str] | None
"""A file of pairs, or the two files of the sources and of the targets."""


def text_pairs(
    *,
    path: Place = None,
    train_path: Place = None,
    validation_path: Place = None,
    test_path: Place = None,
    columns: dict[str, str | int] | None = None,
    skip_empty: bool = False,
    tokenizer: str | Tokenizer = "bpe",
    target_tokenizer: str | Tokenizer | None = None,
    shared: bool = False,
    vocabulary_size: int | None = None,
    validation_size: int | float | None = None,
    test_size: int | float | None = None,
    folds: int | None = None,
    fold: int | None = None,
    train_size: int | None = None,
    split_seed: int = 0,
) -> Data:
    """Pairs of texts: inputs `source` [N, S] and `shifted` [N, T], targets [N, T], int64.

    A path is a file with a pair in each line (with a tab between, a table, or JSON lines), whose `columns` are found or
    named, or the list of a file of sources and one of targets. A column of splits, or files of their own, give the
    splits; `split_seed` draws the others; with `folds`, validation is the part `fold` of so many.

    The `tokenizer` is of the training texts alone, an alphabet of all. Without a `target_tokenizer` the targets have
    one of the same kind; with `shared` both sides have the same. Token k of it is k + 3; 0 is padding, 1 the beginning
    and 2 the end. `shifted` are the targets behind a beginning, and padded targets are `IGNORE_INDEX`. Batches are
    padded to their longest; those of training hold pairs of like lengths.

    Raises `DataError` for what cannot be read and for empty texts, `ConfigError` for sizes and names.
    """
    given = {
        split: read_pairs(paths, columns or {}, skip_empty=skip_empty)
        for split, paths in _paths(path, train_path, validation_path, test_path).items()
    }
    pairs = [*given.values()]
    source, target = ([text for one in pairs for text in side(one)] for side in (_source, _target))
    where = str(pairs[0].path)
    splits = _splits(given)
    known = {split: torch.tensor([i for i, each in enumerate(splits) if each == split]) for split in {*splits}}
    if "train" not in known:
        raise DataError(f"{where} has no training pair.")
    ordered = {split: known[split] for split in SPLITS if split in known}
    options = SplitOptions(
        validation_size=drawn_size(validation_size, DRAWN, own="validation" in known or folds is not None),
        # a test split is drawn only if no split is given
        test_size=drawn_size(test_size, DRAWN, own=len(known) > 1),
        train_size=train_size,
        split_seed=split_seed,
        splitting=Splitting(folds=folds, fold=fold),
    )
    places = split_by_label(NAME, torch.zeros(len(source), dtype=torch.int64), ordered, options)
    tokenizing = Tokenizing(tokenizer, target_tokenizer, shared, vocabulary_size)
    return data_of_pairs(NAME, source, target, places, tokenizing, {"path": where})


def _source(pairs: Pairs) -> Sequence[str]:
    return pairs.source


def _target(pairs: Pairs) -> Sequence[str]:
    return pairs.target


def _splits(given: Mapping[str, Pairs]) -> list[str]:
    """The split of each pair."""
    found: list[str] = []
    for split, pairs in given.items():
        if pairs.splits is None or len(given) > 1:
            found += [split] * len(pairs)
            continue
        for line, cell in zip(pairs.lines, pairs.splits, strict=True):
            if cell.lower() not in SPELLINGS:
                raise DataError(f"{pairs.path}, line {line}: a split is {cell!r}; expected train, val or test.")
            found.append(SPELLINGS[cell.lower()])
    return found


def _paths(path: Place, train: Place, validation: Place, test: Place) -> dict[str, list[Path]]:
    if path is not None and train is not None:
        raise ConfigError("dataset.path and dataset.train_path are both the training pairs. Give one of them.")
    given = {"train": path or train, "validation": validation, "test": test}
    if given["train"] is None:
        raise ConfigError(
            "dataset=text_pairs needs a file of pairs, or two files. Type for example dataset.path=pairs.tsv or "
            "'dataset.path=[corpus.en,corpus.fr]'."
        )
    found = {}
    for split, names in given.items():
        if not names:
            continue
        key = "path" if split == "train" and path else f"{split}_path"
        both = [names] if isinstance(names, str) else [*names]
        if len(both) > 2:
            raise ConfigError(f"dataset.{key} has {len(both)} files; expected one of pairs, or a source and a target.")
        found[split] = [_file(key, name) for name in both]
    return found


def _file(key: str, name: str) -> Path:
    place = Path(name).expanduser().absolute()
    if not place.is_file():
        raise DataError(no_such(f"dataset.{key}", place, "a file of pairs, or one of the two sides"))
    return place
