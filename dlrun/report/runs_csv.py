"""All runs of a sweep as a table: one line a job, whatever became of it."""

from __future__ import annotations

import csv
import io
from typing import Any

from dlrun.report.overview import Overview, swept_value

KEPT = ("best_step", "steps", "seconds", "train_seconds", "parameters", "device", "test_reads", "identity", "error")


def runs_csv(overview: Overview) -> str:
    """Return the table as CSV (RFC 4180): status, what was swept, the seed, the metrics, and more of the summary."""
    # a swept key in its own name; those of the summary would clash only with a user's own
    swept = [key for key in overview.manifest.swept if key != "seed"]
    metrics = list(dict.fromkeys(name for result in overview.results for name in result.metrics))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["job", "status", "group", *swept, "seed", "selected", "reused", *metrics, *KEPT, "folder"])
    chosen = overview.selected
    for result in overview.results:
        row: list[Any] = [result.job.n, result.status, result.job.group, *(swept_value(result, key) for key in swept)]
        row += [result.job.seed, int(bool(chosen and result.job.group == chosen.key)), int(result.reused)]
        summary = result.summary.to_dict()
        row += [result.metrics.get(name) for name in metrics]
        row += [summary.get(key) for key in KEPT]
        writer.writerow([*row, result.run.path])
    return out.getvalue()
