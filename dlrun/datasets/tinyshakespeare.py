"""Tiny Shakespeare: 1,115,394 characters of his plays, 65 distinct (A. Karpathy, char-rnn, 2015)."""

from __future__ import annotations

from dlrun.datasets.files import files
from dlrun.datasets.files.locate import locate
from dlrun.datasets.files.sources import TINYSHAKESPEARE
from dlrun.datasets.language.from_text import from_text
from dlrun.types import Data, Tokenizer

__all__ = ["tinyshakespeare"]


def tinyshakespeare(
    *,
    path: str | None = None,
    tokenizer: str | Tokenizer = "character",
    vocabulary_size: int | None = None,
    context: int = 64,
    stride: int | None = None,
    streams: int | None = None,
    validation_size: int | float = 0.05,
    test_size: int | float = 0.05,
    train_size: int | None = None,
) -> Data:
    """The plays, cut by position.

    90% are for training, then 5% for validation, then 5% for the test. There is no official split. nanoGPT's is
    `validation_size=0.1`, `test_size=0`: 1,003,854 characters to train on and 111,540 to validate. The arguments are
    those of `from_text`. Raises `DataError` if the file is missing or altered.
    """
    located = locate(TINYSHAKESPEARE, path)
    (text,) = (files.read(where, file).decode() for file, where in located.items())
    return from_text(
        "tinyshakespeare",
        text,
        tokenizer=tokenizer,
        vocabulary_size=vocabulary_size,
        context=context,
        stride=stride,
        streams=streams,
        validation_size=validation_size,
        test_size=test_size,
        train_size=train_size,
    )
