"""A sweep at a tracker: the run over its jobs, with its definition and its results.

It has no metrics of its own: one that only the parent has is an empty chart above those of the jobs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dlrun.storage.manifest import Manifest
from dlrun.storage.read_counts import count_reads
from dlrun.storage.results import Result, unended
from dlrun.storage.summary import Summary
from dlrun.storage.sweep_summary import Selection, SweepSummary, compare_means, describe_request, describe_unended
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal.format import counted, number
from dlrun.tracking.content import metadata
from dlrun.tracking.content.description import LIMIT
from dlrun.tracking.content.metadata import Metadata, text
from dlrun.tracking.content.shorten import shorten

STATUSES = ("finished", "failed", "killed", "pruned", "running", "missing", "damaged")
# the most groups in the table that stands in for a report
SHOWN = 20


def sweep_metadata(sweep: SweepDir, manifest: Manifest, results: Sequence[Result], *, ended: bool = False) -> Metadata:
    """A sweep's tags and description, and params once `ended`."""
    # MLflow's params cannot be changed, and a search adds values until the end
    config = params(manifest) if ended else {}
    return Metadata(config, tags(sweep, manifest, results), description=describe(sweep, manifest, results))


def params(manifest: Manifest) -> dict[str, str]:
    """The configuration of all jobs, swept keys first."""
    # the inner dictionaries are ordered sets of values
    found: dict[str, dict[str, None]] = {}
    for job in manifest.jobs:
        for name, value in metadata.params(job.config).items():
            found.setdefault(name, {})[value] = None
    swept_first = sorted(found.items(), key=lambda item: len(item[1]) == 1)
    return {name: ", ".join(values) for name, values in swept_first}


def tags(sweep: SweepDir, manifest: Manifest, results: Sequence[Result]) -> dict[str, str]:
    """The origin and status of a sweep."""
    summary, config = sweep.summary(), manifest.jobs[0].config if manifest.jobs else {}
    # the machine is in the jobs' summaries only
    first = next((result.summary for result in results if result.summary and not result.reused), Summary())
    said = Summary(first.to_dict())
    reads = count_reads(sweep.id, results, summary).total
    chosen: Selection = summary.selected or {}
    said.command, said.test_reads, said.status = manifest.command, reads, sweep.status()
    found = metadata.origin(said, config) | {
        "dlrun.id": sweep.id,
        "dlrun.kind": "sweep",
        "dlrun.folder": str(sweep.path),
        "dlrun.jobs": text(len(manifest.jobs)),
        "dlrun.jobs.status": count(results),
        "dlrun.swept": ", ".join(manifest.swept),
        "dlrun.monitor": manifest.monitor,
        "dlrun.test": manifest.test,
        "dlrun.definition": manifest.definition,
        "dlrun.selected": text("; ".join(each.get("label", "") for each in summary.selections))
        or _unselected(sweep, summary, results),
        # set with each selection: a tag that is left out keeps its old value
        "dlrun.selected.mark": (describe_request(chosen) or "by the rule") if chosen else "",
        "dlrun.selected.now": text((summary.selected_now or chosen).get("label", "")),
        "dlrun.study": text((manifest.study or {}).get("_target_", "")),
    }
    return {name: value for name, value in found.items() if value}


def _unselected(sweep: SweepDir, summary: SweepSummary, results: Sequence[Result]) -> str:
    if sweep.status() == "running" or not (lacking := unended(results, summary)):
        return ""
    return f"nothing yet: {describe_unended(lacking, len(results))}"


def selected_jobs(sweep: SweepDir, manifest: Manifest) -> dict[str, str]:
    """The selected jobs by id: the label of their data set, or `true` where there is one."""
    summary = sweep.summary()
    labelled = [(summary.selected, "true")] + [(each.get("selected"), each["label"]) for each in summary.strata]
    own = {job.n for job in manifest.jobs}
    return {
        sweep.job(n).id: label or "true"
        for selection, label in labelled
        for n in (selection or {}).get("jobs", ())
        if n in own
    }


def status(sweep: SweepDir, results: Sequence[Result]) -> str:
    """The sweep's status, or `failed` if a job failed."""
    own = sweep.status()
    return "failed" if own == "finished" and any(result.status == "failed" for result in results) else own


def count(results: Sequence[Result]) -> str:
    """The jobs of each status: `11 finished, 1 failed`."""
    counts = Counter(result.status for result in results)
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])


def describe(sweep: SweepDir, manifest: Manifest, results: Sequence[Result]) -> str:
    """Describe a sweep in Markdown, at most `LIMIT` characters."""
    summary = sweep.summary()
    pages = sorted(sweep.report.glob("*.md"))
    # a table stands in until there is a report
    body = _report(pages[0]) if pages else _table(manifest, results)
    reads = count_reads(sweep.id, results, summary).total
    first, last = _headline(manifest, summary, results, reads), _repeat(sweep, manifest)
    # a long report is cut, never the command that repeats the sweep
    return "\n\n".join([first, shorten(body, LIMIT - len(first) - len(last) - 4), last])


def _headline(manifest: Manifest, summary: SweepSummary, results: Sequence[Result], reads: int) -> str:
    chosen: Selection = summary.selected or {}
    line = f"**{manifest.name}**: {counted(len(manifest.jobs), 'job')}, {count(results) or 'none begun'}"
    if chosen:
        value = chosen.get("mean")
        mean = f", {manifest.monitor} {number(float(value))} in the mean" if isinstance(value, int | float) else ""
        line += f"  \nselected: **{chosen.get('label', '')}**{mean}"
        line += f" ({words})" if (words := describe_request(chosen)) else ""
    for stratum in summary.strata:
        label = (stratum.get("selected") or {}).get("label", "nothing yet")
        line += f"  \nselected for {stratum['label']}: **{label}**"
    if now := summary.selected_now:
        line += f"  \nnow **{now.get('label', '')}** would be selected ({compare_means(chosen, now)})"
    if unfinished := unended(results, summary):
        line += f"  \n{describe_unended(unfinished, len(results))}" + (
            "" if summary.selections else ": nothing is selected yet"
        )
    often = "once" if reads == 1 else f"{reads} times"
    return f"{line}  \nThe test split was read {often} (evaluation.test={manifest.test})."


def _report(file: Path) -> str:
    """The report's text without its title and pictures."""
    written = file.read_text(encoding="utf-8")
    # no tracker's page can load pictures from the folder
    kept = [line for line in written.splitlines() if not re.match(r"\s*(!\[|# |<img)", line)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


def _table(manifest: Manifest, results: Sequence[Result]) -> str:
    """The groups, best first by their finished seeds' mean."""
    rows = []
    for jobs in manifest.groups.values():
        numbers = {job.n for job in jobs}
        own = [result for result in results if result.job.n in numbers and result.status == "finished"]
        values = [result.metrics[manifest.monitor] for result in own if manifest.monitor in result.metrics]
        mean = sum(values) / len(values) if values else None
        rows.append((mean, f"| {jobs[0].group_label} | {len(values)} of {len(jobs)} | {_number(mean)} |"))
    # groups without a finished seed come last
    rows.sort(key=lambda row: (row[0] is None, -(row[0] or 0.0) if manifest.higher_is_better else row[0] or 0.0))
    lines = [
        f"| configuration | finished | {manifest.monitor} |",
        "| --- | ---: | ---: |",
        *(row for _, row in rows[:SHOWN]),
    ]
    return "\n".join(lines) + (f"\n\n… and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")


def _number(value: float | None) -> str:
    return "" if value is None else number(value)


def _repeat(sweep: SweepDir, manifest: Manifest) -> str:
    return "\n".join(["To repeat it:", "", "```", manifest.command, "```", "", f"Its folder: `{sweep.path}`"])
