"""Tokens are the bytes of a text in UTF-8: 256, for any text in any language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["Byte"]


class Byte:
    """Bytes as tokens, 0 to 255."""

    def __init__(self) -> None:
        self.size = 256

    @classmethod
    def load(cls, content: Mapping[str, Any]) -> Byte:
        """Make the tokenizer again from its `content()`."""
        return cls()  # there is nothing to know but its kind

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`.

        >>> Byte().encode("né")
        [110, 195, 169]
        """
        # Python hands over bytes of a command line that are no UTF-8 as lone surrogates: back to those bytes
        return list(text.encode(errors="surrogateescape"))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`; `�` for bytes of no character."""
        return bytes(tokens).decode(errors="replace")

    def content(self) -> dict[str, Any]:
        """Its kind, for `load`."""
        return {"kind": "byte"}

    def portions(self, pieces: Iterable[str]) -> Iterator[str]:
        """The pieces themselves: a text may be cut anywhere."""
        yield from pieces

    def token_bytes(self) -> list[int]:
        """The bytes of each token."""
        return [1] * self.size

    def bytes_of(self, text: str, tokens: int | None = None) -> int:
        """The number of tokens: each is a byte."""
        return len(text.encode()) if tokens is None else tokens
