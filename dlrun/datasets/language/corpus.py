"""A long text, read in pieces and cut by position into training, validation and test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil
from typing import Protocol

from dlrun.datasets.splitting.cut import sample_count
from dlrun.errors import ConfigError

PIECE = 1 << 18  # characters: enough that the overhead of a piece does not show


class Corpus(Protocol):
    """A text with counted characters, readable from any place on."""

    @property
    def content(self) -> str:
        """The SHA-256 of its UTF-8."""

    def __len__(self) -> int:
        """The number of characters."""

    def read(self, start: int, stop: int) -> Iterator[str]:
        """Yield the characters from `start` to `stop` in pieces."""


@dataclass(frozen=True)
class StringText:
    """A text in memory."""

    text: str

    @cached_property
    def content(self) -> str:
        """The SHA-256 of its UTF-8."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.text)

    def read(self, start: int, stop: int) -> Iterator[str]:
        """Yield the characters from `start` to `stop` in pieces."""
        for place in range(start, stop, PIECE):
            yield self.text[place : min(place + PIECE, stop)]


@dataclass(frozen=True)
class Passage:
    """The characters of a text from `start` to `stop`."""

    text: Corpus
    start: int
    stop: int

    @classmethod
    def whole(cls, text: Corpus) -> Passage:
        """All of a text."""
        return cls(text, 0, len(text))

    @property
    def key(self) -> str:
        """A cache key: the text's hash and the bounds."""
        return f"{self.text.content} {self.start} {self.stop}"

    def __len__(self) -> int:
        return self.stop - self.start

    def beginning(self, most: int) -> Passage:
        """At most the first `most` characters."""
        return Passage(self.text, self.start, min(self.stop, self.start + most))

    def pieces(self) -> Iterator[str]:
        """Yield the characters in pieces."""
        return self.text.read(self.start, self.stop)


def cut_by_position(text: Corpus, *, validation_size: int | float, test_size: int | float) -> dict[str, Passage]:
    """Cut a text: first training, then validation, then test.

    A size is a number of characters, or below 1 a fraction of them. An empty split is left out. Raises `ConfigError`
    for sizes that leave nothing to train on.

    >>> cut = cut_by_position(StringText("abcdefghij"), validation_size=0.2, test_size=3)
    >>> {split: (passage.start, passage.stop) for split, passage in cut.items()}
    {'train': (0, 5), 'validation': (5, 7), 'test': (7, 10)}
    """
    n = len(text)
    test, validation = _characters("test_size", test_size, n), _characters("validation_size", validation_size, n)
    if test + validation >= n:
        raise ConfigError(
            f"dataset.validation_size={validation_size} dataset.test_size={test_size} leave nothing to train on: the "
            f"text has {n:,} characters. Give fractions, for example dataset.validation_size=0.1 dataset.test_size=0."
        )
    cuts = {"train": (0, n - test - validation), "validation": (n - test - validation, n - test), "test": (n - test, n)}
    return {name: Passage(text, start, stop) for name, (start, stop) in cuts.items() if stop > start}


def _characters(key: str, size: int | float, n: int) -> int:
    # Rounded up, as in nanoGPT: with a tenth for validation, training ends at int(0.9 · N).
    # As a decimal fraction: 0.1 · 30 is 3, not 3.0000000000000004, which would be rounded up to 4.
    return ceil(Fraction(str(size)) * n) if 0 < size < 1 else sample_count(size, n, key)
