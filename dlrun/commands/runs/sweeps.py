"""`dlrun runs --sweeps`: one line a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlrun.commands.runs.rows import size_of
from dlrun.storage import manifest
from dlrun.storage.files.json_text import dumps
from dlrun.storage.lookup import outputs, read_each
from dlrun.storage.read_counts import count_reads
from dlrun.storage.results import results
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweep_summary import describe_request
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal import output
from dlrun.terminal.format import amount, minute, number, table


def show(sweeps: Sequence[SweepDir], *, as_json: bool = False) -> int:
    """Print each sweep's progress and selected group."""
    rows = [row for _, row in read_each(sweeps, _row)]
    if as_json:
        print(dumps(rows, indent=2))
    elif rows:
        lines = [["sweep", "started", "name", "status", "jobs", "selected", "mean", "size"]]
        output.say(table([*lines, *map(_line, rows)], indent=""))
    else:
        output.say(f"No sweep under {outputs()}.")
    return 0


def runs_of(sweep: SweepDir) -> list[RunDir]:
    # its own, not those that it reuses
    jobs = [sweep.job(job.n) for job in manifest.read(sweep).jobs]
    return [run for run, begun in read_each(jobs, RunDir.summary) if begun]


def _row(sweep: SweepDir) -> dict[str, Any]:
    found, summary = manifest.read(sweep), sweep.summary()
    jobs = results(sweep, found)
    finished = sum(result.status == "finished" for result in jobs)
    return summary.to_dict() | {
        "id": sweep.id,
        "folder": str(sweep.path),
        "status": sweep.status(),
        # `dlrun test` reads after the sweep's end too
        "test_reads": count_reads(sweep.id, jobs, summary).total,
        "name": found.name,
        "started": found.created,
        "jobs": len(found.jobs),
        "finished": finished,
        "size": size_of(sweep),
    }


def _line(row: dict[str, Any]) -> list[str]:
    chosen: Any = row.get("selected") or {}
    strata = [each["selected"]["label"] for each in row.get("strata") or () if each.get("selected")]
    mean = "" if chosen.get("mean") is None else f"{chosen['monitor']} {number(chosen['mean'])}"
    started = minute(row["started"])
    done = f"{row['finished']}/{row['jobs']}"
    size = amount(row["size"], "B")
    now = row.get("selected_now") or {}
    words = "; ".join(filter(None, [describe_request(chosen), f"now it would be `{now['label']}`" if now else ""]))
    label = chosen.get("label", "; ".join(strata)) + (f" ({words})" if words else "")
    return [row["id"], started, row["name"], row["status"], done, label, mean, size]
