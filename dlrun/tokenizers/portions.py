"""Where a long text may be cut so that the tokens of the portions are those of the whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

PORTION = 1 << 18
"""The length of a portion in characters, roughly."""

_GAP = re.compile(r"[!-~\w](?=[ \n])")
_TAIL = 1 << 12


def at_gaps(pieces: Iterable[str], size: int = PORTION) -> Iterator[str]:
    """Yield a text in portions of about `size` characters, each cut before a white space.

    A cut lies between a character that is seen and a space or a line break behind it. There words end, and so
    do the pieces into which byte-pair encoding cuts first: none of them has white space inside or at its end.

    >>> list(at_gaps(["to be ", "or not"], size=4))
    ['to be', ' or', ' not']
    """
    held = ""
    for piece in pieces:
        held += piece
        while len(held) >= size and (cut := _last_gap(held)):
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held


def _last_gap(text: str) -> int:
    """Return the place of the last gap, 0 if there is none; mostly it is near the end."""
    for start in (max(0, len(text) - _TAIL), 0):
        places = [found.end() for found in _GAP.finditer(text, start)]
        if places:
            return places[-1]
    return 0
