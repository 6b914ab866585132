"""Tokenizers: text ↔ tokens, one small file each, chosen by name (`dataset.tokenizer`).

`fit` makes one from a text, `described` says what it is made of (a run's `tokenizer.json`), and `load` makes it
again. A user's own has a class method `load(content)`; `dlrun.config.instantiate` finds its class.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from dlrun.errors import ConfigError, did_you_mean
from dlrun.tokenizers.bpe import LEAST, Bpe
from dlrun.tokenizers.byte import Byte
from dlrun.tokenizers.character import Character
from dlrun.tokenizers.portions import at_gaps
from dlrun.tokenizers.word import Word
from dlrun.types import Tokenizer

_CLASSES: Mapping[str, type[Character] | type[Byte] | type[Word] | type[Bpe]] = {
    "character": Character,
    "byte": Byte,
    "word": Word,
    "bpe": Bpe,
}

KINDS = tuple(_CLASSES)
"""The names of the tokenizers."""


@runtime_checkable
class Measured(Tokenizer, Protocol):
    """A tokenizer that can take a long text in portions, and say how many bytes its tokens stand for."""

    def portions(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield the text that comes in `pieces`, cut where the tokens of the portions are those of the whole."""

    def bytes_of(self, text: str, tokens: int | None = None) -> int | None:
        """Return how many bytes in UTF-8 the first `tokens` tokens of `text` stand for (null: all of it).

        None if they do not stand for all that was written: a word that is none of the vocabulary's.
        """


def load(content: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer whose `content()` is given.

    Raises `ConfigError` if it is of no tokenizer of dlrun.

    >>> load(fit("word", ["to be or not to be"]).content()).encode("to be")
    [3, 2]
    """
    check(str(content.get("kind")))
    return _CLASSES[content["kind"]].load(content)


def describe(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what a tokenizer is made of: its content, and the full name of its class if it is none of dlrun's.

    Raises `ConfigError` if JSON cannot hold it.

    >>> describe(Byte())
    {'kind': 'byte'}
    """
    kind = type(tokenizer)
    if kind in _CLASSES.values():
        return tokenizer.content()
    name = f"{kind.__module__}.{kind.__qualname__}"
    try:
        return {"class": name, "content": json.loads(json.dumps(tokenizer.content()))}
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}.content() is not what JSON can hold: {error}.") from None


def key(tokenizer: Tokenizer) -> str:
    """Return what tells a tokenizer from all others: its description, and the code of one that is none of dlrun's."""
    made_of = json.dumps(describe(tokenizer), sort_keys=True)
    file = getattr(sys.modules.get(type(tokenizer).__module__), "__file__", None)
    if type(tokenizer) in _CLASSES.values() or not file:
        return made_of
    return f"{made_of} {hashlib.sha256(Path(file).read_bytes()).hexdigest()}"


def fit(
    kind: str, train: Iterable[str], others: Iterable[str] = (), *, vocabulary_size: int | None = None
) -> Character | Byte | Word | Bpe:
    """Return the tokenizer `kind`, made from a training text that comes in pieces.

    An alphabet is that of `others` too, the further splits; a vocabulary is the training text's alone.
    """
    check(kind, vocabulary_size)
    if kind == "character":
        return Character.fit(portion for pieces in (train, others) for portion in pieces)
    if kind == "word":
        return Word.fit(at_gaps(train), vocabulary_size)
    return Bpe.fit(at_gaps(train), vocabulary_size) if kind == "bpe" else Byte()


def check(kind: str, vocabulary_size: int | None = None) -> None:
    """Raise `ConfigError` if there is no tokenizer `kind`, or none of that size."""
    if kind not in _CLASSES:
        raise ConfigError(
            f"dataset.tokenizer={kind}: there is no such tokenizer.{did_you_mean(kind, KINDS)} "
            f"There are: {', '.join(KINDS)}."
        )
    if vocabulary_size is None:
        return
    if kind in ("character", "byte"):
        raise ConfigError(
            f"dataset.vocabulary_size={vocabulary_size} has no meaning for dataset.tokenizer={kind}, whose size is "
            f"that of its alphabet. Leave it out, or choose dataset.tokenizer=bpe or word."
        )
    least = LEAST if kind == "bpe" else 2
    if vocabulary_size < least:
        reason = "one for each byte" if kind == "bpe" else "`<unk>` and `<eos>`"
        raise ConfigError(
            f"dataset.vocabulary_size={vocabulary_size}: dataset.tokenizer={kind} has at least {least} tokens, "
            f"{reason}. Type for example dataset.vocabulary_size=1024."
        )
