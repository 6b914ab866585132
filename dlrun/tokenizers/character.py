"""Tokens are characters: the alphabet of a text, in the order of their code points.

Where a further text has others, one more token stands for all of them: so text is lost, as with words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dlrun.errors import UserError

__all__ = ["Character"]


UNKNOWN = "\ufffd"
"""The text of the token for characters outside of the alphabet."""


class Character:
    """Characters as tokens: the places in `alphabet`, from 0; with `unknown`, the last token is for all others."""

    def __init__(self, alphabet: str, *, unknown: bool = False) -> None:
        self.alphabet = alphabet
        self.unknown = unknown
        self.size = len(alphabet) + unknown
        self._places = {character: i for i, character in enumerate(alphabet)}

    @classmethod
    def fit(cls, portions: Iterable[str], further: Iterable[str] = ()) -> Character:
        """Make the tokenizer of all characters of a text.

        If a `further` text has others, they share a token.

        >>> Character.fit(["hello"]).encode("hole")
        [1, 3, 2, 0]
        >>> Character.fit(["hello"], ["help!"]).encode("help!")
        [1, 0, 2, 4, 4]
        """
        alphabet: set[str] = set()
        for portion in portions:
            alphabet.update(portion)
        return cls("".join(sorted(alphabet)), unknown=not all(alphabet.issuperset(portion) for portion in further))

    @classmethod
    def load(cls, content: Mapping[str, Any]) -> Character:
        """Make the tokenizer again from its `content()`."""
        alphabet = content["alphabet"]
        if not isinstance(alphabet, str) or not alphabet:
            raise ValueError("`alphabet` is no text")
        return cls(alphabet, unknown=content.get("unknown") is True)

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`.

        Raises `UserError` for a character outside the alphabet, unless there is a token for it.
        """
        try:
            return [self._places[character] for character in text]
        except KeyError as unknown:
            if self.unknown:
                last = self.size - 1
                return [self._places.get(character, last) for character in text]
            raise UserError(self._unknown_message(unknown.args[0])) from None

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`; `�` for a character outside the alphabet."""
        characters = self.alphabet + UNKNOWN * self.unknown
        return "".join(characters[token] for token in tokens)

    def content(self) -> dict[str, Any]:
        """The alphabet, for `load`."""
        # without the key, as before there was one: the runs on such texts stay what they are
        return {"kind": "character", "alphabet": self.alphabet} | ({"unknown": True} if self.unknown else {})

    def portions(self, pieces: Iterable[str]) -> Iterator[str]:
        """The pieces themselves: a text may be cut anywhere."""
        yield from pieces

    def token_bytes(self) -> list[int] | None:
        """The bytes of each character, in UTF-8; None if a token stands for several."""
        return None if self.unknown else [len(character.encode()) for character in self.alphabet]

    def bytes_of(self, text: str, tokens: int | None = None) -> int | None:
        """The bytes of the first `tokens` characters, in UTF-8.

        None if one is outside the alphabet: then the tokens do not stand for the text.
        """
        if self.unknown and not self._places.keys() >= set(text[:tokens]):
            return None
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
