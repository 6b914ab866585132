"""A page as one HTML file with its figures inside, for the screen and for print."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path

from dlrun.report.document import Block, Code, Heading, Image, Paragraph, Table
from dlrun.storage.files.opening import open_regular

MAX_SVG = 600_000  # bytes; a larger drawing is slow to show and goes in as PNG

CODE = re.compile(r"`([^`\n]+)`")

# no script and no font or file from elsewhere: the page opens offline
STYLE = """
:root { color-scheme: light dark; --rule: #bbb; --soft: #f3f3f3; --page: #fff; --ink: #1a1a1a }
@media (prefers-color-scheme: dark) { :root { --rule: #555; --soft: #2a2a2a; --page: #1c1c1c; --ink: #e6e6e6 } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  background: var(--page); color: var(--ink) }
h1, h2, h3 { line-height: 1.25; break-after: avoid }
h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--rule) }
pre, code { background: var(--soft) }
pre { padding: .6rem .8rem; white-space: pre-wrap; overflow-wrap: anywhere }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: top }
th:first-child, td:first-child { text-align: left }
.words th, .words td { text-align: left }
tr.strong { font-weight: 700; background: var(--soft) }
figure { margin: 1.6rem 0; break-inside: avoid }
figure img { max-width: 100%; height: auto; background: #fff }
figcaption { font-size: .92rem }
@media print { :root { --page: #fff; --ink: #000; --soft: #f3f3f3; --rule: #bbb }
  body { margin: 0; max-width: none; font-size: 11pt } .wide { overflow: visible } }
"""


def html(blocks: Sequence[Block], *, title: str, figures: Path) -> str:
    """Write the blocks as a page, its images inside.

    `figures` is the images' folder.
    """
    return document("\n".join(_block(block, figures) for block in blocks), title=title)


def document(body: str, *, title: str, style: str = STYLE) -> str:
    """A page of a body that is HTML already."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{style}</style>\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _block(block: Block, figures: Path) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Paragraph(text, strong):
            return f"<p><strong>{escape(strong)}</strong> {inline(text)}</p>" if strong else f"<p>{inline(text)}</p>"
        case Code(text):
            return f"<pre>{escape(text)}</pre>"
        case Image(name, caption):
            shown = f'<img src="{data_url(figures / name)}" alt="{escape(caption)}">'
            return f"<figure>{shown}<figcaption>{inline(caption)}</figcaption></figure>"
        case Table(head, rows, strong, words):
            return table(head, rows, strong=strong, words=words)


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, strong: Collection[int] = (), words: bool = False
) -> str:
    """Rows under a head; the arguments are those of `document.Table`."""
    lines = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"]
    for i, row in enumerate(rows):
        mark = ' class="strong"' if i in strong else ""
        lines.append(f"<tr{mark}>{''.join(f'<td>{inline(cell)}</td>' for cell in row)}</tr>")
    joined = "\n".join(lines)
    kind = ' class="words"' if words else ""
    return f'<div class="wide"><table{kind}>\n{joined}\n</table></div>'


def inline(text: str) -> str:
    """Escape a text, its code in backticks as `<code>`.

    >>> inline("`a<b` is better")
    '<code>a&lt;b</code> is better'
    """
    return CODE.sub(r"<code>\1</code>", escape(text))


def data_url(figure: Path) -> str:
    """A figure as an address that holds it; `figure` is the path of its `.svg` and `.png`, without an ending."""
    for ending, kind in ((".svg", "svg+xml"), (".png", "png")):
        file = figure.with_name(figure.name + ending)
        # a drawing is sharp at any size and in print
        if file.exists() and (ending == ".png" or file.stat().st_size <= MAX_SVG):
            with open_regular(file, "rb") as content:
                return f"data:image/{kind};base64,{b64encode(content.read()).decode()}"
    raise FileNotFoundError(figure.with_name(f"{figure.name}.png"))
