"""The summary of a sweep in the terminal."""

from __future__ import annotations

from pathlib import Path

from dlrun.report import claims, known_samples, selected, sentences, tables
from dlrun.report.document import Table
from dlrun.report.overview import Overview, read_overview
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal.format import table as align

MAX_GROUPS = 12  # a terminal of 24 lines shows them with the sentences around them


def terminal_text(sweep: SweepDir) -> str:
    """A sweep's results and its report's path, in short."""
    overview = read_overview(sweep)
    parts = [*_head(overview), *_parts(overview), *_claims(overview), *_path(overview)]
    return "\n".join(filter(None, parts))


def _head(overview: Overview) -> list[str]:
    return [f"{overview.manifest.name}  {sentences.job_counts(overview)}"]


def _parts(overview: Overview) -> list[str]:
    most = max(2, MAX_GROUPS // len(overview.strata))
    lines = [line for part in overview.strata for line in (part.label, *_groups(part, most), *_test_split(part))]
    return lines if len(overview.strata) == 1 else [*lines, _format_table(tables.by_stratum(overview))]


def _groups(overview: Overview, most: int) -> list[str]:
    lines = []
    if overview.finished:
        lines.append(_format_table(tables.ranking(overview, most)))
        if len(overview.groups) > most:
            lines.append(f"  … and {len(overview.groups) - most} more groups, in the report")
        lines.append(_indent(sentences.lead(overview)))
    if overview.finished or overview.unended:
        lines.append(_indent(selected.selection(overview)))
    return lines


def _test_split(overview: Overview) -> list[str]:
    group = overview.selected or (overview.groups[0] if len(overview.groups) == 1 else None)
    table = tables.test_scores(overview, group) if group else None
    sentences = selected.describe_reads(overview), known_samples.describe(overview)
    return [*map(_indent, sentences), _format_table(table) if table else ""]


def _claims(overview: Overview) -> list[str]:
    return [f"  {claim.verdict}: {claim.text}\n    {claim.evidence}" for claim in claims.read(overview)]


def _path(overview: Overview) -> list[str]:
    page = overview.sweep.report / "report.html"
    here = Path.cwd()  # a relative path is short, and can be clicked in most terminals
    shown = page.relative_to(here) if page.is_relative_to(here) else page
    return [f"  {shown}" if page.exists() else f"  {overview.sweep.path}"]


def _format_table(table: Table) -> str:
    """Align columns, and mark strong rows with a star."""
    rows = [[_mark(i, table) + row[0], *row[1:]] for i, row in enumerate(table.rows)]
    head = [("  " if table.strong else "") + table.head[0], *table.head[1:]]
    return align([head, *rows])


def _mark(i: int, table: Table) -> str:
    return ("★ " if i in table.strong else "  ") if table.strong else ""


def _indent(text: str) -> str:
    return f"  {text}" if text else ""
