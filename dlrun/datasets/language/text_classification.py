"""Texts of your own with labels, as tokens of one length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dlrun.datasets.files.missing import no_such
from dlrun.datasets.files.tabular.roles import choose_columns
from dlrun.datasets.files.tabular.text_table import TextTable, class_column, class_names
from dlrun.datasets.language.corpus import Passage, StringText
from dlrun.datasets.language.labelled import ROLES, encode_texts, read_table, text_keys
from dlrun.datasets.language.labelled import simplify as simplified
from dlrun.datasets.language.token_cache import tokenizer_of
from dlrun.datasets.splitting.by_label import DRAWN, split_by_label
from dlrun.datasets.splitting.choose import Splitting
from dlrun.datasets.splitting.cut import SplitOptions, drawn_size
from dlrun.datasets.splitting.names import SPELLINGS
from dlrun.datasets.tensors.fingerprint import fingerprint
from dlrun.datasets.tensors.sample_keys import thin
from dlrun.datasets.tensors.spec import spec_of
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.datasets.tensors.standardise import Standardise
from dlrun.errors import ConfigError, DataError
from dlrun.terminal import output
from dlrun.tokenizers.description import cache_key
from dlrun.types import Data, RawInputs, Tokenizer

__all__ = ["text_classification"]

NAME = "text_classification"

SPLITS: tuple[str, ...] = ("train", "validation", "test")


def text_classification(
    *,
    path: str | None = None,
    train_path: str | None = None,
    validation_path: str | None = None,
    test_path: str | None = None,
    columns: dict[str, str] | None = None,
    simplify: bool = True,
    tokenizer: str | Tokenizer = "word",
    vocabulary_size: int | None = None,
    length: int = 128,
    validation_size: int | float | None = None,
    test_size: int | float | None = None,
    stratify: bool = True,
    folds: int | None = None,
    fold: int | None = None,
    train_size: int | None = None,
    split_seed: int = 0,
) -> Data:
    """The texts of a table or of JSON lines, int64 [N, length], with their classes.

    Each line has a text and a label, whose `columns` are found or named; a column of splits, or files of their own,
    give the splits. `split_seed` draws the others, each with every class's share (`stratify`); with
    `folds`, validation is the part `fold` of so many.

    With `simplify` texts are in lower case, with punctuation apart. The `tokenizer` is of the training texts alone; its
    token k is k + 1, and 0 follows a text shorter than `length` tokens. Raises `DataError` for what cannot be read,
    `ConfigError` for sizes and names.
    """
    if length < 1:
        raise ConfigError(f"dataset.length={length}: expected a number of tokens of at least 1.")
    given = _tables(path, train_path, validation_path, test_path)
    texts, labels, names, places = _join(given, columns or {})
    where = str(next(iter(given.values())).path)
    options = SplitOptions(
        validation_size=drawn_size(validation_size, DRAWN, own="validation" in places or folds is not None),
        # a test split is drawn only if no split is given
        test_size=drawn_size(test_size, DRAWN, own=len(places) > 1),
        train_size=train_size,
        split_seed=split_seed,
        splitting=Splitting(stratify, folds=folds, fold=fold),
    )
    places = split_by_label(NAME, labels, places, options)
    plain = [simplified(text) for text in texts] if simplify else texts
    made = _tokenizer(tokenizer, [plain[i] for i in places["train"].tolist()], vocabulary_size)
    x, counts = encode_texts(plain, made, length)
    _report_lengths(counts[places["train"]], length)
    keys = text_keys(texts)
    content = fingerprint(keys, labels, *names, cache_key(made), str(length), str(simplify))
    splits = {split: TensorSplit(x[some], labels[some]) for split, some in places.items()}
    spec = spec_of(NAME, "classification", x, labels, class_names=names)
    return Data(
        name=NAME,
        spec=replace(spec, vocabulary=made.size + 1),
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        fingerprint=fingerprint(NAME, content, *(part for split, some in places.items() for part in (split, some))),
        prepare=Standardise((length,), indices=True),
        tokenizer=made,
        split_fingerprints={split: fingerprint(keys[some], labels[some]) for split, some in places.items()},
        sample_keys={split: thin(keys[some]) for split, some in places.items()},
        notes={"path": where, "vocabulary": made.size + 1, "longest": int(counts.max())},
        inputs=RawInputs((length,), "int64"),
    )


def _tables(path: str | None, train: str | None, validation: str | None, test: str | None) -> dict[str, TextTable]:
    if path is not None and train is not None:
        raise ConfigError("dataset.path and dataset.train_path are both the training texts. Give one of them.")
    given = {"train": path or train, "validation": validation, "test": test}
    if given["train"] is None:
        raise ConfigError(
            "dataset=text_classification needs a file of texts and labels. Type for example dataset.path=reviews.csv."
        )
    found = {}
    for split, name in given.items():
        if name is None:
            continue
        place = Path(name).expanduser().absolute()
        if not place.is_file():
            key = "path" if split == "train" and path else f"{split}_path"
            raise DataError(no_such(f"dataset.{key}", place, "a file of texts and labels"))
        found[split] = read_table(place)
    return found


def _join(
    given: Mapping[str, TextTable], columns: Mapping[str, str]
) -> tuple[list[str], Tensor, tuple[str, ...], dict[str, Tensor]]:
    """All texts, their classes, the classes' names, and the places of the splits that are given."""
    texts: list[str] = []
    labels: list[str] = []
    splits: list[str] = []
    names: tuple[str, ...] = ()
    for split, table in given.items():
        chosen = choose_columns(table, ROLES, columns)
        own = class_column(table, chosen["label"])
        found = class_names(table, chosen["label"], own)
        texts += table.column(chosen["text"])
        labels += own
        by_column = chosen.get("split") if len(given) == 1 else None
        splits += [_split(table, cell) for cell in table.column(by_column)] if by_column else [split] * len(own)
        if split == "train":
            names = found
    seen = {label for label, split in zip(labels, splits, strict=True) if split == "train"}
    if unknown := sorted({*labels} - seen):
        raise DataError(f"No training text has the label {', '.join(map(repr, unknown[:8]))}.")
    places: dict[str, Tensor] = {
        split: torch.tensor([i for i, each in enumerate(splits) if each == split])
        for split in SPLITS
        if split in splits
    }
    return texts, torch.tensor([names.index(label) for label in labels]), names, places


def _split(table: TextTable, cell: str) -> str:
    known = cell.strip().lower()
    if known not in SPELLINGS:
        raise DataError(f"{table.path}: a split is {cell!r}; expected train, val or test.")
    return SPELLINGS[known]


def _tokenizer(given: str | Tokenizer, texts: Sequence[str], vocabulary_size: int | None) -> Tokenizer:
    if not isinstance(given, str):
        return given
    return tokenizer_of(given, Passage.whole(StringText("\n".join(texts))), vocabulary_size=vocabulary_size)


def _report_lengths(counts: Tensor, length: int) -> None:
    """Say how many training texts are empty or cut, and if all are far shorter."""
    if empty := int((counts == 0).sum()):
        output.warn(f"{empty:,} of {len(counts):,} training texts are empty.")
    cut, longest = int((counts > length).sum()), int(counts.max())
    if cut:
        output.warn(
            f"{cut:,} of {len(counts):,} training texts have more than dataset.length={length} tokens, and are cut; "
            f"the longest has {longest:,}."
        )
    elif 2 * longest <= length:
        output.warn(f"The longest training text has {longest} tokens: dataset.length={longest} is enough, and faster.")
