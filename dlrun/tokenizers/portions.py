"""A long text in portions, cut where the tokens of the portions are those of the whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from dlrun.types import Tokenizer

PORTION = 1 << 18
"""The length of a portion, roughly, in characters: large enough that its overhead does not show."""

# ASCII's visible characters, and any script's letters and digits
_GAP = re.compile(r"[!-~\w](?=[ \n])")
_FAR = 1 << 10  # characters to look back for a gap, before looking ahead


@runtime_checkable
class PortionTokenizer(Tokenizer, Protocol):
    """A tokenizer for long texts, in portions, with counted bytes.

    Both methods are optional: a tokenizer without them encodes a text whole, and bits per byte are not known. A third
    one, `token_bytes() -> list[int] | None`, has the bytes of each token, where they do not depend on its neighbours.
    Without it a part of a text is taken to have as many bytes a token as the whole.
    """

    def portions(self, pieces: Iterable[str]) -> Iterator[str]:
        """The text in portions, with the tokens of the whole."""

    def bytes_of(self, text: str, tokens: int | None = None) -> int | None:
        """The bytes of the first `tokens` tokens (None: of all).

        In UTF-8; None if the tokens lose some of the text, such as a word outside the vocabulary.
        """


def at_gaps(pieces: Iterable[str], size: int = PORTION) -> Iterator[str]:
    """Yield a text in portions, each cut before white space.

    A portion has about `size` characters. A cut lies between a visible character and a space or a line break behind
    it. There words end, and so do the pieces into which byte-pair encoding cuts first: none of them has white space
    inside or at its end.

    >>> list(at_gaps(["to be ", "or not"], size=4))
    ['to', ' be', ' or', ' not']
    """
    held = ""  # text after the last cut
    for piece in pieces:
        held += piece
        begin = 0
        while len(held) - begin >= size and (cut := _gap(held, begin, begin + size)):
            yield held[begin:cut]
            begin = cut
        held = held[begin:]
    if held:
        yield held


def _gap(text: str, start: int, place: int) -> int:
    """The gap nearest before `place`, else behind it, else 0."""
    before = [found.end() for found in _GAP.finditer(text, max(start, place - _FAR), place)]
    if before:
        return before[-1]
    behind = _GAP.search(text, max(start, place - 1))
    return behind.end() if behind else 0
