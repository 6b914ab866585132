"""A page as a list of blocks, which Markdown and HTML write each in their way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's own."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; `strong` is what begins it, and stands out."""

    text: str
    strong: str = ""


@dataclass(frozen=True)
class Code:
    """What is typed or printed."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows under a head; the rows in `strong` stand out.

    The first column stands to the left, and the others, being numbers, to the right; `words` all to the left.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: frozenset[int] = frozenset()
    words: bool = False


@dataclass(frozen=True)
class Image:
    """A figure in the report's folder `figures`, by its name without an ending, and what it shows."""

    name: str
    caption: str


Block = Heading | Paragraph | Code | Table | Image
