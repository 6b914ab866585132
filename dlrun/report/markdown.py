"""A page as Markdown, with its figures in files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dlrun.report.document import Block, Code, Heading, Image, Paragraph, Table


def markdown(blocks: Sequence[Block]) -> str:
    r"""Write the blocks as a page.

    >>> print(markdown([Heading("Lines", 1), Table(["a", "b"], [["x|y", "1"]])]))
    # Lines
    <BLANKLINE>
    | a | b |
    | :-- | --: |
    | x\|y | 1 |
    <BLANKLINE>
    """
    return "\n\n".join(map(_block, blocks)) + "\n"


def _block(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_escape(text)}"
        case Paragraph(text, strong):
            return f"**{_escape(strong)}** {_escape(text)}" if strong else _escape(text)
        case Code(text):
            return f"```\n{text}\n```"
        case Image(name, caption):
            return f"![{_escape(caption)}](figures/{name}.png)\n\n*{_escape(caption)}*"
        case Table(head, rows, strong, words):
            lines = [[_cell(cell) for cell in row] for row in (head, *rows)]
            lines = [[f"**{c}**" if c and i - 1 in strong else c for c in row] for i, row in enumerate(lines)]
            rule = [":--", *[":--" if words else "--:"] * (len(head) - 1)]
            return "\n".join(f"| {' | '.join(row)} |" for row in (lines[0], rule, *lines[1:]))


def _cell(text: str) -> str:
    return _escape(text).replace("|", r"\|").replace("\n", " ")


def _escape(text: str) -> str:
    """Escape a text, but not its code in backticks.

    >>> _escape("`model_a` and b_c")
    '`model_a` and b\\\\_c'
    """
    parts = re.split(r"(`[^`\n]+`)", text)
    # `split` with a group: every other part is code
    return "".join(part if i % 2 else re.sub(r"[\\`*_<\[]", r"\\\g<0>", part) for i, part in enumerate(parts))
