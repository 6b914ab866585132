"""Runs as rows of a table."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from dlrun.errors import UserError, did_you_mean
from dlrun.storage import journal
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal.format import amount, minute, number, table

# valid in --where and --sort, even if no run has come to them
COLUMNS = ("id", "started", "name", "status", "seed", "steps", "train_seconds", "size")


def row_of(run: RunDir) -> dict[str, Any]:
    summary = run.summary()
    # an ended run is read once: there may be ten thousand
    if (status := summary.status) == "running":
        status, summary = run.status(), run.summary()
    own = {"run": run, "id": run.id, "folder": str(run.path), "status": status, "size": size_of(run)}
    if status in ("running", "killed") and summary.steps is None:
        # an ended run has its steps in the summary, a running or killed one in the journal alone
        own |= {"steps": journal.last_step(run.journal), "cost": journal.last_cost(run.journal)}
    return summary.to_dict() | own


def value_of(row: dict[str, Any], name: str) -> Any:
    if name in row:
        return row[name]
    cost = row.get("cost") or {}
    if name.startswith("cost/") and (own := name.removeprefix("cost/")) in cost:
        return cost[own]
    return (row.get("metrics") or {}).get(name)


def measured(row: dict[str, Any]) -> dict[str, Any]:
    """The metrics, and the cost by the names that it has in the curves."""
    return {**(row.get("metrics") or {}), **{f"cost/{name}": value for name, value in (row.get("cost") or {}).items()}}


def check_name(name: str, rows: list[dict[str, Any]]) -> None:
    names = {*COLUMNS, *(k for row in rows for k in (*row, *measured(row)))} - {"run"}
    if rows and name not in names:  # without a run, every name would be unknown
        raise UserError(f"No run has `{name}`.{did_you_mean(name, names)}\nThere are: {', '.join(sorted(names))}.")


def as_table(rows: list[dict[str, Any]], metrics: list[str] | None) -> str:
    if not metrics:  # the common ones that some run has
        present = {name for row in rows for name in (row.get("metrics") or {})}
        wanted = ["val/loss", "val/error", "val/mse", "test/error", "test/mse", "test/perplexity"]
        # and those by which runs were selected
        wanted += sorted({str(name) for row in rows if (name := row.get("selected_by"))} - {*wanted})
        metrics = [name for name in wanted if name in present]
    lines = [["run", "started", "name", "status", "seed", "steps", "train s", *metrics, "size"]]
    for row in rows:
        cells = [
            row["id"],
            minute(row.get("started")),
            row.get("name", ""),
            row["status"],
            row.get("seed"),
            _steps(row),
        ]
        cells += [row.get("train_seconds"), *(value_of(row, name) for name in metrics)]
        shown = [number(c) if isinstance(c, float) else "" if c is None else str(c) for c in cells]
        lines.append([*shown, amount(row["size"], "B")])
    return table(lines, indent="")


def _steps(row: dict[str, Any]) -> str:
    """The steps so far; of a run that has not ended, also those that it is to take."""
    steps, horizon = row.get("steps"), row.get("horizon")
    if row["status"] in ("running", "killed") and horizon:
        return f"{steps or 0}/{horizon}"
    return "" if steps is None else str(steps)


def size_of(folder: RunDir | SweepDir) -> int:
    """The bytes of a run or a sweep on the disk."""
    return _size_below(str(folder.path))


def _size_below(folder: str) -> int:
    size = 0
    with suppress(FileNotFoundError, PermissionError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                size += _size_below(entry.path)
            elif entry.is_file():
                size += entry.stat(follow_symlinks=False).st_size
    return size
