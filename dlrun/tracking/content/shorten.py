"""Texts cut to a tracker's lengths, each still unlike the others."""

from __future__ import annotations

import hashlib


def shorten(value: str, limit: int) -> str:
    """Cut a text to `limit` characters, ending in a digest.

    >>> shorten("a long text", 30), len(shorten("a long text " * 9, 30))
    ('a long text', 30)
    """
    # the digest keeps texts of one beginning apart; 12 is the length of all behind the cut
    return value if len(value) <= limit else f"{value[: limit - 12]}… [{digest(value)}]"


def digest(value: str) -> str:
    """Eight hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:8]
