"""Where a long text may be cut so that the tokens of the portions are those of the whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

PORTION = 1 << 18
"""The length of a portion in characters, roughly."""

_GAP = re.compile(r"[!-~\w](?=[ \n])")
_FAR = 1 << 10


def at_gaps(pieces: Iterable[str], size: int = PORTION) -> Iterator[str]:
    """Yield a text in portions of about `size` characters, each cut before a white space.

    A cut lies between a character that is seen and a space or a line break behind it. There words end, and so
    do the pieces into which byte-pair encoding cuts first: none of them has white space inside or at its end.

    >>> list(at_gaps(["to be ", "or not"], size=4))
    ['to', ' be', ' or', ' not']
    """
    held = ""
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
    """Return a gap near `place`, before it if one is not far away, else the first behind it; 0 if there is none."""
    before = [found.end() for found in _GAP.finditer(text, max(start, place - _FAR), place)]
    if before:
        return before[-1]
    behind = _GAP.search(text, max(start, place - 1))
    return behind.end() if behind else 0
