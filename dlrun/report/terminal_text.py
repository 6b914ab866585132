"""What a terminal shows when a sweep has ended."""

from __future__ import annotations

from pathlib import Path

from dlrun.report import claims, sentences, tables
from dlrun.report.document import Table
from dlrun.report.overview import Overview, read_overview
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal.format import table as align

SHOWN = 12
"""So many groups are listed in a terminal."""


def terminal_text(sweep: SweepDir) -> str:
    """Return what came of a sweep in a few lines: its groups, the selected one, the test, the claims."""
    overview = read_overview(sweep)
    return "\n".join(
        f"{part}" for part in (*_groups(overview), *_tested(overview), *_claims(overview), *_place(overview)) if part
    )


def _groups(overview: Overview) -> list[str]:
    told = [f"{overview.manifest.name}  {sentences.job_counts(overview)}"]
    if overview.finished:
        told.append(_aligned(tables.ranking(overview, SHOWN)))
        if len(overview.groups) > SHOWN:
            told.append(f"  … and {len(overview.groups) - SHOWN} more groups, in the report")
        told.append(_indented(sentences.lead(overview)))
        if len(overview.groups) > 1:
            told.append(_indented(sentences.selection(overview)))
    return told


def _tested(overview: Overview) -> list[str]:
    group = overview.selected or (overview.groups[0] if len(overview.groups) == 1 else None)
    table = tables.test_scores(overview, group) if group else None
    return [_indented(sentences.test_reads(overview)), _aligned(table) if table else ""]


def _claims(overview: Overview) -> list[str]:
    return [f"  {claim.verdict}: {claim.text}\n    {claim.evidence}" for claim in claims.read(overview)]


def _place(overview: Overview) -> list[str]:
    page = overview.sweep.report / "report.html"
    here = Path.cwd()
    shown = page.relative_to(here) if page.is_relative_to(here) else page
    return [f"  {shown}" if page.exists() else f"  {overview.sweep.path}"]


def _aligned(table: Table) -> str:
    """Return a table as a terminal shows it, a star at the rows that stand out."""
    marked = any(table.strong)
    rows = [[_mark(i, table, marked) + row[0], *row[1:]] for i, row in enumerate(table.rows)]
    head = [("  " if table.strong else "") + table.head[0], *table.head[1:]]
    return align([head, *rows])


def _mark(i: int, table: Table, marked: bool) -> str:
    return ("★ " if i in table.strong else "  ") if table.strong or marked else ""


def _indented(text: str) -> str:
    return f"  {text}" if text else ""
