"""Tokens are the bytes of a text in UTF-8: 256, for any text in any language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["Byte"]


class Byte:
    """The bytes 0 … 255, each a token."""

    def __init__(self) -> None:
        self.size = 256

    @classmethod
    def load(cls, content: Mapping[str, Any]) -> Byte:
        """Return the tokenizer."""
        return cls()

    def encode(self, text: str) -> list[int]:
        """Return the tokens of `text`.

        >>> Byte().encode("né")
        [110, 195, 169]
        """
        # what a command line hands over as bytes that are no UTF-8 are those bytes again
        return list(text.encode(errors="surrogateescape"))

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`; bytes that are no character become `�`."""
        return bytes(tokens).decode(errors="replace")

    def content(self) -> dict[str, Any]:
        """Return what it is made of."""
        return {"kind": "byte"}

    def portions(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield the pieces as they are: a text may be cut anywhere."""
        yield from pieces

    def bytes_of(self, text: str, tokens: int | None = None) -> int:
        """Return `tokens`, or the length of `text` in bytes."""
        return len(text.encode()) if tokens is None else tokens
