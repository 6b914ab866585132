"""Texts with labels, read from tables and JSON lines, as tokens of one length."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlrun.datasets.files.tabular.roles import choose_columns
from dlrun.datasets.files.tabular.text_table import TextTable, read_csv
from dlrun.datasets.language.json_lines import is_json_lines, records
from dlrun.datasets.language.lines import read_lines
from dlrun.errors import DataError
from dlrun.types import Tokenizer

TABLES = (".csv", ".tsv")

ROLES: Mapping[str, Sequence[str]] = {
    "text": ("text", "sentence", "review", "content", "document", "body", "comment", "tweet", "question", "headline"),
    "label": ("label", "labels", "class", "category", "target", "sentiment", "topic", "y", "intent"),
    "split": ("split", "set", "subset", "partition"),
}
"""What the columns of a table may be, and names by which they are found, in any case."""

_PUNCTUATION = re.compile(r"[^\w\s]")

PADDING = 0
"""The token behind the end of a text; those of the tokenizer follow it."""


def read_table(path: Path) -> TextTable:
    """The rows of a .csv, .tsv or .jsonl file.

    Raises `DataError` for any other file, and for what cannot be read.
    """
    if path.suffix.lower() in TABLES:
        return read_csv(path)
    if not is_json_lines(path):
        raise DataError(
            f"{path}: expected a table (.csv, .tsv) or JSON lines (.jsonl) with a text and a label in each."
        )
    numbers, found = [], []
    for number, record in records(path):
        numbers.append(number)
        found.append(_flat(record))
    if not found:
        raise DataError(f"{path} has no lines.")
    header = [*found[0]]
    if not header:
        raise DataError(f"{path}, line {numbers[0]} has no fields.")
    for number, record in zip(numbers, found, strict=True):
        if missing := [name for name in header if name not in record]:
            raise DataError(f"{path}, line {number} has no field `{missing[0]}`; the first has {', '.join(header)}.")
    rows = [[_cell(record[name]) for name in header] for record in found]
    nested = {name for name in header if any(isinstance(record[name], list | dict) for record in found)}
    return TextTable(path, header, rows, numbers, frozenset(nested))


def _cell(value: object) -> str:
    # NaN is what Python writes for a missing number
    return "" if value is None or value != value else str(value)


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """A record with the fields of its `translation` among its own, as Hugging Face has {"en": …, "fr": …}."""
    inner = record.get("translation")
    if not isinstance(inner, dict):
        return record
    return {name: value for name, value in record.items() if name != "translation"} | inner


def read_texts(path: Path, given: Mapping[str, str]) -> list[str]:
    """The texts of a file, without labels: a line each of a .txt, or a column of a table."""
    if path.suffix.lower() in TABLES or is_json_lines(path):
        table = read_table(path)
        # new texts have no labels
        known = {role: name for role, name in given.items() if role == "text"}
        return table.column(choose_columns(table, {"text": ROLES["text"]}, known)["text"])
    return read_lines(path)


def simplify(text: str) -> str:
    """A text in lower case, with blanks around punctuation.

    >>> simplify("Don't: it's GREAT!").split()
    ['don', "'", 't', ':', 'it', "'", 's', 'great', '!']
    """
    return _PUNCTUATION.sub(r" \g<0> ", text.lower())


def encode_texts(texts: Sequence[str], tokenizer: Tokenizer, length: int) -> tuple[Tensor, Tensor]:
    """The tokens int64 [N, length] of texts, and how many each has, int64 [N].

    A longer text is cut; a shorter one is followed by `PADDING`. A tokenizer's token k is k + 1.
    """
    tokens = torch.full((len(texts), length), PADDING, dtype=torch.int64)
    counts = torch.zeros(len(texts), dtype=torch.int64)
    for place, text in enumerate(texts):
        found = tokenizer.encode(text)
        counts[place] = len(found)
        kept = found[:length]
        tokens[place, : len(kept)] = torch.tensor(kept, dtype=torch.int64) + 1
    return tokens, counts


def text_keys(texts: Sequence[str]) -> Tensor:
    """A key int64 [N] of each text: equal for equal texts, whatever their tokens."""
    digests = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts)
    return torch.tensor([int.from_bytes(digest[:8], signed=True) for digest in digests], dtype=torch.int64)
