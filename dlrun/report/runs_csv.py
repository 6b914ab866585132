"""The table of all jobs of a sweep, whatever their status."""

from __future__ import annotations

import csv
import io
import os
from typing import Any

from dlrun.report.overview import Overview, swept_value
from dlrun.terminal.escape import csv_cell

SUMMARY_KEYS = (
    "best_step",
    "steps",
    "seconds",
    "train_seconds",
    "parameters",
    "device",
    "test_reads",
    "identity",
    "error",
)


def runs_csv(overview: Overview) -> str:
    """All jobs as CSV (RFC 4180), one per line.

    Columns: status, swept values, seed, metrics, `SUMMARY_KEYS` of the summary, and the run's folder,
    seen from the table's. A text that a spreadsheet would take for a formula gets an apostrophe.
    """
    # a swept key clashes with another column only if a user's own key is called so
    swept = [key for key in overview.manifest.swept if key != "seed"]
    metrics = list(dict.fromkeys(name for result in overview.results for name in result.metrics))
    out = io.StringIO()
    writer = csv.writer(out)
    head = ["job", "status", "group", *swept, "seed", "selected", "reused", *metrics, *SUMMARY_KEYS, "folder"]
    writer.writerow([csv_cell(name) for name in head])
    chosen = {group.key for group in overview.groups if group.selected}
    for result in overview.results:
        row: list[Any] = [result.job.n, result.status, result.job.group, *(swept_value(result, key) for key in swept)]
        row += [result.job.seed, int(result.job.group in chosen), int(result.reused)]
        summary = result.summary.to_dict()
        row += [result.metrics.get(name) for name in metrics]
        # None is an empty cell
        row += [summary.get(key) for key in SUMMARY_KEYS]
        # relative, so that it stays true where the outputs folder is moved
        row.append(os.path.relpath(result.run.path, overview.sweep.report))
        writer.writerow([csv_cell(value) for value in row])
    return out.getvalue()
