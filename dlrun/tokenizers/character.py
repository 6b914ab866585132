"""Tokens are characters: the alphabet of a text, in the order of their code points."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dlrun.errors import UserError

__all__ = ["Character"]


class Character:
    """Characters as tokens: the places in `alphabet`, from 0."""

    def __init__(self, alphabet: str) -> None:
        self.alphabet = alphabet
        self.size = len(alphabet)
        self._places = {character: i for i, character in enumerate(alphabet)}

    @classmethod
    def fit(cls, portions: Iterable[str]) -> Character:
        """Make the tokenizer of all characters of a text.

        >>> Character.fit(["hello"]).encode("hole")
        [1, 3, 2, 0]
        """
        alphabet: set[str] = set()
        for portion in portions:
            alphabet.update(portion)
        return cls("".join(sorted(alphabet)))

    @classmethod
    def load(cls, content: Mapping[str, Any]) -> Character:
        """Make the tokenizer again from its `content()`."""
        alphabet = content["alphabet"]
        if not isinstance(alphabet, str) or not alphabet:
            raise ValueError("`alphabet` is no text")
        return cls(alphabet)

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`.

        Raises `UserError` for a character outside the alphabet.
        """
        try:
            return [self._places[character] for character in text]
        except KeyError as unknown:
            raise UserError(self._unknown_message(unknown.args[0])) from None

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`."""
        return "".join(self.alphabet[token] for token in tokens)

    def content(self) -> dict[str, Any]:
        """The alphabet, for `load`."""
        return {"kind": "character", "alphabet": self.alphabet}

    def portions(self, pieces: Iterable[str]) -> Iterator[str]:
        """The pieces themselves: a text may be cut anywhere."""
        yield from pieces

    def bytes_of(self, text: str, tokens: int | None = None) -> int:
        """The bytes of the first `tokens` characters, in UTF-8."""
        return len(text[:tokens].encode())

    def _unknown_message(self, character: str) -> str:
        # all of a small alphabet, such as 65 characters of Shakespeare
        shown = self.alphabet if self.size <= 100 else f"{self.alphabet[:100]}…"
        name = unicodedata.name(character, "no printable character")
        return (
            f"The character {character!r} (U+{ord(character):04X}, {name}) cannot be encoded: the "
            f"tokenizer's alphabet has these {self.size} characters:\n  {shown!r}\n"
            "Leave it out, or train with a tokenizer that encodes any text: dataset.tokenizer=byte (or bpe)."
        )
