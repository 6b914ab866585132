"""The tokenizers by their names in `dataset.tokenizer`: `character`, `byte`, `word`, `bpe`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dlrun.errors import ConfigError, UserError, did_you_mean
from dlrun.tokenizers.bpe import LEAST, Bpe
from dlrun.tokenizers.byte import Byte
from dlrun.tokenizers.character import Character
from dlrun.tokenizers.portions import at_gaps
from dlrun.tokenizers.word import Word

CLASSES: Mapping[str, type[Character] | type[Byte] | type[Word] | type[Bpe]] = {
    "character": Character,
    "byte": Byte,
    "word": Word,
    "bpe": Bpe,
}

NAMES = tuple(CLASSES)


def fit(
    name: str,
    train: Iterable[str],
    validation: Iterable[str] = (),
    test: Iterable[str] = (),
    *,
    vocabulary_size: int | None = None,
) -> Character | Byte | Word | Bpe:
    """Make the tokenizer `name` from pieces of a training text.

    An alphabet includes the characters of `validation`; further ones of `test` share a token, as unknown words do. A
    vocabulary is of the training text alone. Raises `ConfigError` as `check` does.

    >>> fit("character", ["hello"]).encode("hole")
    [1, 3, 2, 0]
    """
    check(name, vocabulary_size)
    if name == "character":
        return Character.fit((piece for pieces in (train, validation) for piece in pieces), test)
    if name == "word":
        return Word.fit(at_gaps(train), vocabulary_size)
    return Bpe.fit(at_gaps(train), vocabulary_size) if name == "bpe" else Byte()


def load(content: Mapping[str, Any]) -> Character | Byte | Word | Bpe:
    """Make a tokenizer of dlrun again from its `content()`.

    Raises `ConfigError` for the content of another, or a damaged one.

    >>> load(fit("word", ["to be or not to be"]).content()).encode("to be")
    [3, 2]
    """
    # its error names the tokenizers, as a `KeyError` would not
    kind = str(content.get("kind"))
    check(kind)
    try:
        return CLASSES[kind].load(content)
    except UserError:
        raise
    except Exception as error:  # a file that somebody wrote may hold anything, and the library raises anything
        raise ConfigError(f"The {kind} tokenizer is damaged: {type(error).__name__}: {error}.") from None


def check(name: str, vocabulary_size: int | None = None) -> None:
    """Raise `ConfigError` for an unknown name or wrong size."""
    if name not in CLASSES:
        raise ConfigError(
            f"dataset.tokenizer={name}: there is no such tokenizer.{did_you_mean(name, NAMES)} "
            f"There are: {', '.join(NAMES)}."
        )
    if vocabulary_size is None:
        return
    if name in ("character", "byte"):
        raise ConfigError(
            f"dataset.vocabulary_size={vocabulary_size} has no meaning for dataset.tokenizer={name}: its alphabet is "
            f"its vocabulary. Leave it out, or choose dataset.tokenizer=bpe or word."
        )
    least = LEAST if name == "bpe" else 2
    if vocabulary_size < least:
        reason = "one for each byte" if name == "bpe" else "`<unk>` and `<eos>`"
        raise ConfigError(
            f"dataset.vocabulary_size={vocabulary_size}: dataset.tokenizer={name} has at least {least} tokens, "
            f"{reason}. Type for example dataset.vocabulary_size=1024."
        )
