"""Texts of others made harmless: for a terminal, for a spreadsheet."""

from __future__ import annotations

import re
from typing import Any

_CONTROL = re.compile(
    # C0 and C1, which move the cursor, name windows and type; marks that turn the direction of writing;
    # halves of characters, which no stream can encode
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def visible(text: str, *, keep: str = "") -> str:
    r"""A text with its control characters written out.

    Line breaks and tabs stay, and those in `keep`.

    >>> print(visible("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else _written(found[0]), text)


def encodable(text: str) -> str:
    r"""A text that has a form in UTF-8: halves of characters, as of a file name that is no UTF-8, are written out.

    >>> encodable("caf\udce9.png")
    'caf\\udce9.png'
    """
    return text.encode(errors="backslashreplace").decode()


def csv_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula.

    A text that begins like one gets an apostrophe; numbers stay numbers.

    >>> csv_cell("=1+1"), csv_cell("-0.5"), csv_cell(-0.5), csv_cell(None)
    ("'=1+1", '-0.5', -0.5, None)
    """
    if not isinstance(value, str):
        return value
    begins_like_one = value.startswith(_FORMULA) and not _is_number(value)
    return visible(f"'{value}" if begins_like_one else value)


def _written(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
