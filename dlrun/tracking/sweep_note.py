"""The page of a sweep, under which its jobs lie: what was asked, what came of it, and its report.

It has no metrics of its own: one that only the parent has is an empty chart above those of the jobs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dlrun.storage.manifest import Manifest
from dlrun.storage.results import Result
from dlrun.storage.summary import Summary, SweepSummary
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal.format import number
from dlrun.tracking import describe
from dlrun.tracking.describe import TAG, shorten, text

STATUSES = ("finished", "failed", "killed", "pruned", "running", "missing")
SHOWN = 20
"""The most groups that the note lists where there is no report."""


def params(what: Manifest) -> dict[str, str]:
    """Return the configuration that all jobs share; a key that varies has the list of its values, and comes first."""
    flat = [describe.params(job.config) for job in what.jobs]
    found: dict[str, dict[str, None]] = {}
    for one in flat:
        for name, value in one.items():
            found.setdefault(name, {})[value] = None
    swept_first = sorted(found.items(), key=lambda item: len(item[1]) == 1)
    return {name: shorten(", ".join(values), describe.PARAM) for name, values in swept_first}


def tags(sweep: SweepDir, what: Manifest, results: Sequence[Result]) -> dict[str, str]:
    """Return what the sweep is and how it stands."""
    summary, config = sweep.summary(), what.jobs[0].config if what.jobs else {}
    # where it ran is said by its jobs; the sweep's own words win
    first = next((result.summary for result in results if result.summary and not result.reused), Summary())
    said = Summary(first.to_dict())
    said.command, said.test_reads, said.status = what.command, test_reads(summary, results), sweep.status()
    found = describe.source(said, config) | {
        "dlrun.id": sweep.id,
        "dlrun.kind": "sweep",
        "dlrun.folder": str(sweep.path),
        "dlrun.jobs": text(len(what.jobs)),
        "dlrun.jobs.status": counted(results),
        "dlrun.swept": ", ".join(what.swept),
        "dlrun.monitor": what.monitor,
        "dlrun.test": what.test,
        "dlrun.definition": what.definition,
        "dlrun.selected": text((summary.selected or {}).get("label", "")),
        "dlrun.study": text((what.study or {}).get("_target_", "")),
    }
    return {name: shorten(value, TAG) for name, value in found.items() if value}


def status(sweep: SweepDir, results: Sequence[Result]) -> str:
    """Return the sweep's status, or `failed` if one of its jobs failed."""
    own = sweep.status()
    return "failed" if own == "finished" and any(result.status == "failed" for result in results) else own


def test_reads(summary: SweepSummary, results: Sequence[Result]) -> int:
    """Return how often the jobs of the sweep have read the test split; reused runs read it for others."""
    reads = sum(result.summary.test_reads for result in results if not result.reused)
    return max(reads, summary.test_reads)


def counted(results: Sequence[Result]) -> str:
    """Return how many jobs have which status: `11 finished, 1 failed`."""
    counts = Counter(result.status for result in results)
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])


def note(sweep: SweepDir, what: Manifest, results: Sequence[Result]) -> str:
    """Return the note in Markdown: the headline, then the report, or a table where there is none yet."""
    summary = sweep.summary()
    pages = sorted(sweep.report.glob("*.md"))
    body = [_report(pages[0])] if pages else [_table(what, results)]
    parts = [_headline(what, summary, results), *body, _repeat(sweep, what)]
    # the end of a long report is cut, not how to repeat the sweep
    spare = TAG - sum(len(part) + 2 for part in (parts[0], parts[-1]))
    return "\n\n".join([parts[0], shorten(body[0], spare), parts[-1]])


def _headline(what: Manifest, summary: SweepSummary, results: Sequence[Result]) -> str:
    chosen = summary.selected or {}
    line = f"**{what.name}**: {len(what.jobs)} jobs, {counted(results) or 'none begun'}"
    if chosen:
        value = chosen.get("mean")
        mean = f", {what.monitor} {number(float(value))} in the mean" if isinstance(value, int | float) else ""
        line += f"  \nselected: **{chosen.get('label', '')}**{mean}"
    reads = test_reads(summary, results)
    return (
        f"{line}  \nThe test split was read {'once' if reads == 1 else f'{reads} times'} (evaluation.test={what.test})."
    )


def _report(file: Path) -> str:
    """Return the report's text without its title and its pictures, whose files the page cannot show."""
    written = file.read_text(encoding="utf-8")
    kept = [line for line in written.splitlines() if not re.match(r"\s*(!\[|# |<img)", line)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


def _table(what: Manifest, results: Sequence[Result]) -> str:
    """Return the groups by the mean of the monitored metric over their finished seeds."""
    rows = []
    for jobs in what.groups.values():
        numbers = {job.n for job in jobs}
        own = [result for result in results if result.job.n in numbers and result.status == "finished"]
        values = [result.metrics[what.monitor] for result in own if what.monitor in result.metrics]
        mean = sum(values) / len(values) if values else None
        rows.append((mean, f"| {jobs[0].label} | {len(values)} of {len(jobs)} | {_number(mean)} |"))
    rows.sort(key=lambda row: (row[0] is None, -(row[0] or 0.0) if what.higher_is_better else row[0] or 0.0))
    lines = [
        f"| configuration | finished | {what.monitor} |",
        "| --- | ---: | ---: |",
        *(row for _, row in rows[:SHOWN]),
    ]
    return "\n".join(lines) + (f"\n\n… and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")


def _number(value: float | None) -> str:
    return "" if value is None else number(value)


def _repeat(sweep: SweepDir, what: Manifest) -> str:
    return "\n".join(["To repeat it:", "", "```", what.command, "```", "", f"Its folder: `{sweep.path}`"])
