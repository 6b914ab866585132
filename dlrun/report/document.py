"""A page as a list of blocks; `markdown` and `html` write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """Level 1 is the title of the page."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Code stands in backticks. `strong` opens the paragraph in bold."""

    text: str
    strong: str = ""


@dataclass(frozen=True)
class Code:
    """A command, or output."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows under a head.

    The rows numbered in `strong` are bold. The first column is aligned to the left, the others to the right, as
    numbers; with `words`, all to the left.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: frozenset[int] = frozenset()
    words: bool = False


@dataclass(frozen=True)
class Image:
    """A figure; `name` is its file's, without an ending."""

    name: str
    caption: str


Block = Heading | Paragraph | Code | Table | Image
