"""What a terminal shows when a sweep has ended."""

from __future__ import annotations

from pathlib import Path

from dlrun.report import claims, sentences, tables
from dlrun.report.document import Table
from dlrun.report.overview import Overview, overview
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal import format as text

SHOWN = 12
"""So many groups are listed in a terminal."""


def closing(sweep: SweepDir) -> str:
    """Return what came of a sweep in a few lines: its groups, the selected one, the test, the claims."""
    seen = overview(sweep)
    return "\n".join(f"{part}" for part in (*_groups(seen), *_tested(seen), *_claims(seen), *_place(seen)) if part)


def _groups(seen: Overview) -> list[str]:
    told = [f"{seen.what.name}  {sentences.counted(seen)}"]
    if seen.finished:
        told.append(_aligned(tables.ranking(seen, SHOWN)))
        if len(seen.groups) > SHOWN:
            told.append(f"  … and {len(seen.groups) - SHOWN} more groups, in the report")
        told.append(_indented(sentences.lead(seen)))
        if len(seen.groups) > 1:
            told.append(_indented(sentences.chosen(seen)))
    return told


def _tested(seen: Overview) -> list[str]:
    group = seen.selected or (seen.groups[0] if len(seen.groups) == 1 else None)
    table = tables.tested(seen, group) if group else None
    return [_indented(sentences.read(seen)), _aligned(table) if table else ""]


def _claims(seen: Overview) -> list[str]:
    return [f"  {claim.verdict}: {claim.text}\n    {claim.evidence}" for claim in claims.kept(seen)]


def _place(seen: Overview) -> list[str]:
    page = seen.sweep.report / "report.html"
    here = Path.cwd()
    shown = page.relative_to(here) if page.is_relative_to(here) else page
    return [f"  {shown}" if page.exists() else f"  {seen.sweep.path}"]


def _aligned(table: Table) -> str:
    """Return a table as a terminal shows it, a star at the rows that stand out."""
    marked = any(table.strong)
    rows = [[_mark(i, table, marked) + row[0], *row[1:]] for i, row in enumerate(table.rows)]
    head = [("  " if table.strong else "") + table.head[0], *table.head[1:]]
    return text.table([head, *rows])


def _mark(i: int, table: Table, marked: bool) -> str:
    return ("★ " if i in table.strong else "  ") if table.strong or marked else ""


def _indented(text: str) -> str:
    return f"  {text}" if text else ""
