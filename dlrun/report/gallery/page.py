"""The gallery's page: one HTML file with all figures inside."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from dlrun.report.gallery.entry import SCORES, Entry
from dlrun.report.html import STYLE, data_url, document, inline, table
from dlrun.storage.files.replacing import write_atomically
from dlrun.studies.study import Claim
from dlrun.terminal.escape import encodable, visible
from dlrun.terminal.format import counted, duration, minute

VERDICTS: dict[str, str] = {"held": "✓", "not held": "✗", "undecided": "?"}

GALLERY_STYLE = f"""{STYLE}
:root {{ --held: #00694d; --failed: #a33f00; --open: #5a5a5a; --soften: #666 }}
@media (prefers-color-scheme: dark) {{
  :root {{ --held: #4fd1a5; --failed: #ff9a66; --open: #b5b5b5; --soften: #aaa }} }}
body {{ max-width: 52rem; overflow-wrap: break-word }}
h3 {{ margin: 0 0 .4rem; font-size: 1.3rem }}
article {{ margin: 2.2rem 0 3.5rem }}
nav ol, nav ul, .claims {{ list-style: none; padding: 0; margin: .3rem 0 }}
nav h2 {{ border: 0; font-size: 1rem; margin: 1rem 0 0 }}
nav li {{ display: flex; gap: .8rem; justify-content: space-between; padding: .2rem 0;
  border-bottom: 1px solid var(--soft) }}
nav a {{ color: inherit }}
nav span {{ white-space: nowrap }}
.claims li {{ padding: .5rem 0 .5rem .9rem; border-left: 4px solid var(--open); margin: .8rem 0 }}
.claims p {{ margin: .15rem 0; font-size: .92rem; color: var(--soften) }}
.claims .held {{ border-color: var(--held) }}
.claims .not-held {{ border-color: var(--failed) }}
b.held {{ color: var(--held) }}
b.not-held {{ color: var(--failed) }}
b.undecided {{ color: var(--open) }}
.remark {{ border: 1px solid var(--rule); padding: .5rem .8rem; border-radius: .3rem }}
.trouble {{ border-color: var(--failed) }}
.facts {{ font-size: .88rem; color: var(--soften) }}
figure {{ margin: 1.2rem 0 }}
figcaption {{ color: var(--soften) }}
@media print {{ article {{ break-inside: avoid-page }} }}
"""


def write_page(entries: Sequence[Entry], file: Path, *, title: str = "Gallery") -> None:
    """Write the page of the entries, in their order; those of one section follow one another."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = document(visible("\n".join(_body(entries, title))), title=visible(title), style=GALLERY_STYLE)
    write_atomically(file, encodable(text).encode())


def _body(entries: Sequence[Entry], title: str) -> Iterator[str]:
    yield f"<h1>{escape(title)}</h1>"
    yield f"<p>{_summary(entries)}</p>"
    yield f"<nav>{''.join(_contents(entries))}</nav>"
    section = ""
    for number, entry in enumerate(entries):
        if entry.section and entry.section != section:
            yield f"<h2>{escape(entry.section)}</h2>"
        section = entry.section
        yield from _article(entry, number)


def _summary(entries: Sequence[Entry]) -> str:
    verdicts = Counter[str](claim.verdict for entry in entries for claim in entry.claims)
    told = ", ".join(f"{verdicts[v]} {v}" for v in VERDICTS if verdicts[v])
    claims = f" with {counted(sum(verdicts.values()), 'claim')}, checked against their runs: {told}" if told else ""
    empty = sum(entry.empty for entry in entries)
    shown = f"{len(entries) - empty} of {counted(len(entries), 'sweep')}" if empty else counted(len(entries), "sweep")
    return f"{shown}{claims}. Written {minute(time.time())}."


def _contents(entries: Sequence[Entry]) -> Iterator[str]:
    section = None
    for number, entry in enumerate(entries):
        if entry.section != section:
            yield "" if section is None else "</ul>"
            yield f"<h2>{escape(entry.section)}</h2><ul>" if entry.section else "<ul>"
            section = entry.section
        yield f'<li><a href="#e{number}">{escape(entry.title)}</a><span>{_marks(entry)}</span></li>'
    yield "" if section is None else "</ul>"


def _marks(entry: Entry) -> str:
    """A sign for each claim, with its verdict for a pointer and a reader of screens."""
    if entry.empty:
        return "not run" if entry.whole else "failed"
    signs = "".join(
        f'<b class="{_kind(c)}" role="img" aria-label="{escape(c.verdict)}" title="{escape(f"{c.text} {c.verdict}")}">'
        f"{VERDICTS.get(c.verdict, '?')}</b> "
        for c in entry.claims
    )
    if entry.scores and not entry.claims:
        metric, _, mean, *_ = entry.scores[0]
        signs = f"{escape(f'{metric} {mean}')} "
    # of earlier code: its day
    older = f"of {minute(entry.started)[:10]}" if entry.remark or entry.recorded else ""
    return f"{signs}{older if entry.whole else 'not whole'}"


def _article(entry: Entry, number: int) -> Iterator[str]:
    yield f'<article id="e{number}">'
    yield f"<h3>{escape(entry.title)}</h3>"
    if entry.question:
        yield f"<p>{inline(entry.question)}</p>"
    yield f"<pre>{escape(entry.command)}</pre>"
    if entry.remark:
        yield f'<p class="remark{"" if entry.whole else " trouble"}">{inline(entry.remark)}</p>'
    for picture in entry.pictures:
        shown = f'<img src="{data_url(picture.place)}" alt="{escape(picture.caption)}">'
        yield f"<figure>{shown}<figcaption>{inline(picture.caption)}</figcaption></figure>"
    if entry.claims:
        yield f'<ul class="claims">{"".join(map(_claim, entry.claims))}</ul>'
    if entry.scores:
        yield table(SCORES, entry.scores)
    if facts := _facts(entry):
        yield f'<p class="facts">{escape(facts)}</p>'
    yield "</article>"


def _claim(claim: Claim) -> str:
    verdict = f'<b class="{_kind(claim)}">{VERDICTS.get(claim.verdict, "?")} {escape(claim.verdict)}</b>'
    return f'<li class="{_kind(claim)}">{verdict} {inline(claim.text)}<p>{inline(claim.evidence)}</p></li>'


def _kind(claim: Claim) -> str:
    # a study of the user's may say anything
    return claim.verdict.replace(" ", "-") if claim.verdict in VERDICTS else "undecided"


def _facts(entry: Entry) -> str:
    when = minute(entry.started)
    parts = [
        f"{'kept from a sweep of' if entry.recorded else 'begun'} {when}" if when else "",
        counted(entry.jobs, "run") if entry.jobs else "",
        f"took {duration(entry.seconds)}" if entry.seconds else "",
        entry.setting,
    ]
    return " · ".join(filter(None, parts))
