"""`dlrun runs --sweeps`: one line a sweep; and the deletion of runs and sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlrun import tracking
from dlrun.errors import UserError
from dlrun.storage import manifest
from dlrun.storage.files.json_text import dumps
from dlrun.storage.files.links import remove_folder
from dlrun.storage.lookup import outputs, read_each, sweep_of
from dlrun.storage.read_counts import count_reads, note_reads
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


def delete(sweeps: Sequence[SweepDir]) -> None:
    """Remove sweeps from the disk and the trackers.

    Raises `UserError` if one is running.
    """
    # all are looked at before one is removed
    for sweep in sweeps:
        if sweep.alive():
            raise UserError(f"{sweep.path} is running. Stop it first.")
    for sweep in sweeps:
        remove(sweep)


def remove(folder: RunDir | SweepDir) -> None:
    """Remove a run or a sweep from the trackers and the disk."""
    if isinstance(folder, RunDir) and (sweep := sweep_of(folder)):
        note_reads(sweep)
    # the trackers first: they find their runs by the folder
    for line in tracking.delete(folder):
        output.say(line)
    remove_folder(folder.path)


def size_of(folder: RunDir | SweepDir) -> int:
    """The bytes of a run or a sweep on the disk."""
    return sum(f.lstat().st_size for f in folder.path.rglob("*") if f.is_file())


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
