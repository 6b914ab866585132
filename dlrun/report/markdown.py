"""A page as Markdown, with its figures beside it."""

from __future__ import annotations

from collections.abc import Sequence

from dlrun.report.document import Block, Code, Heading, Image, Paragraph, Table


def markdown(blocks: Sequence[Block]) -> str:
    r"""Return the page.

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
            return f"{'#' * level} {_escaped(text)}"
        case Paragraph(text, strong):
            return f"**{_escaped(strong)}** {_escaped(text)}" if strong else _escaped(text)
        case Code(text):
            return f"```\n{text}\n```"
        case Image(name, caption):
            return f"![{_escaped(caption)}](figures/{name}.png)\n\n*{_escaped(caption)}*"
        case Table(head, rows, strong, words):
            lines = [[_cell(cell) for cell in row] for row in (head, *rows)]
            lines = [[f"**{c}**" if c and i - 1 in strong else c for c in row] for i, row in enumerate(lines)]
            rule = [":--", *[":--" if words else "--:"] * (len(head) - 1)]
            return "\n".join(f"| {' | '.join(row)} |" for row in (lines[0], rule, *lines[1:]))


def _cell(text: str) -> str:
    return _escaped(text).replace("|", r"\|").replace("\n", " ")


def _escaped(text: str) -> str:
    for sign in "\\`*_<[":
        text = text.replace(sign, f"\\{sign}")
    return text
