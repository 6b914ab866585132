"""A page as Markdown, with its figures in files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from dlrun.report.document import Block, Code, Heading, Image, Paragraph, Table
from dlrun.terminal.escape import visible


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
    return visible("\n\n".join(map(_block, blocks)) + "\n")


def _block(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_line(text)}"
        case Paragraph(text, strong):
            return f"**{_line(strong)}** {_escape(text)}" if strong else _escape(text)
        case Code(text):
            return _code_block(text)
        case Image(name, caption):
            return f"![{_line(caption)}](figures/{name}.png)\n\n*{_escape(caption)}*"
        case Table(head, rows, strong, words):
            lines = [[_cell(cell) for cell in row] for row in (head, *rows)]
            lines = [[f"**{c}**" if c and i - 1 in strong else c for c in row] for i, row in enumerate(lines)]
            rule = [":--", *[":--" if words else "--:"] * (len(head) - 1)]
            return "\n".join(f"| {' | '.join(row)} |" for row in (lines[0], rule, *lines[1:]))


def _code_block(text: str) -> str:
    # a line of backticks would end the block, and some programs show markup in it
    if "<" in text or "```" in text:
        return f"<pre>\n{escape(text, quote=False)}\n</pre>"
    return f"```\n{text}\n```"


def _cell(text: str) -> str:
    return _line(text).replace("|", r"\|")


def _line(text: str) -> str:
    return _escape(text).replace("\n", " ")


def _escape(text: str) -> str:
    """Escape a text, but not its code in backticks.

    >>> _escape("`model_a` and b_c")
    '`model_a` and b\\\\_c'
    >>> print(_escape("`a<b` and c<d"))
    <code>a&lt;b</code> and c&lt;d
    """
    parts = re.split(r"(`[^`\n]+`)", text)
    # `split` with a group: every other part is code
    return "".join(_code(part) if i % 2 else _escape_plain(part) for i, part in enumerate(parts))


def _code(part: str) -> str:
    if "<" not in part:
        return part
    return f"<code>{_escape_plain(part[1:-1])}</code>"


def _escape_plain(text: str) -> str:
    text = re.sub(r"[\\`*_\[]", r"\\\g<0>", text)
    # an entity, for some programs know no backslash before a tag
    return re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("<", "&lt;")
