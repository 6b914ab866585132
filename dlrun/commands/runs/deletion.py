"""The deletion of runs and sweeps, from the disk and the trackers, after a question."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from dlrun import tracking
from dlrun.commands.runs import sweeps
from dlrun.commands.runs.rows import as_table, size_of
from dlrun.errors import UserError
from dlrun.storage.files.links import remove_folder
from dlrun.storage.lookup import sweep_of
from dlrun.storage.read_counts import note_reads
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal import output
from dlrun.terminal.format import amount, counted


def delete_runs(rows: list[dict[str, Any]], *, sure: bool) -> int:
    if not rows:
        output.say("No such run; nothing is deleted.")
        return 0
    alive = [row["folder"] for row in rows if row["run"].alive()]
    if alive:
        raise UserError(f"{alive[0]} is being trained. Stop it first.")
    output.say(as_table(rows, None))
    size = amount(sum(row["size"] for row in rows), "B")
    if not (sure or _agree(f"{'this run' if len(rows) == 1 else f'these {len(rows)} runs'}, {size}")):
        return 0
    for row in rows:
        _remove(row["run"])
    output.say(f"Deleted {counted(len(rows), 'run')}, {size}.")
    return 0


def delete_sweeps(named: dict[str, SweepDir | None], *, sure: bool) -> int:
    chosen = [sweep for sweep in named.values() if sweep is not None]
    if len(chosen) < len(named):
        runs = [reference for reference, sweep in named.items() if sweep is None]
        raise UserError(f"{', '.join(runs)}: delete runs and sweeps by two commands.")
    sweeps.show(chosen)
    size = amount(sum(map(size_of, chosen)), "B")
    if sure or _agree(f"{'this sweep' if len(chosen) == 1 else 'these sweeps'}, {size}, with all runs"):
        _delete_all(chosen)
        output.say(f"Deleted {counted(len(chosen), 'sweep')}, {size}.")
    return 0


def _agree(what: str) -> bool:
    if not sys.stdin.isatty():
        raise UserError(
            "--delete asks a question, and there is no terminal to answer it. Add --yes to delete without it."
        )
    # a whole word: a y typed by habit deletes nothing
    agreed = input(f"Delete {what}, and what the trackers have of them? Type yes: ").strip() == "yes"
    if not agreed:
        output.say("Nothing is deleted.")
    return agreed


def _delete_all(chosen: Sequence[SweepDir]) -> None:
    """Remove sweeps from the disk and the trackers.

    Raises `UserError` if one is running.
    """
    # all are looked at before one is removed
    for sweep in chosen:
        if sweep.alive():
            raise UserError(f"{sweep.path} is running. Stop it first.")
    for sweep in chosen:
        _remove(sweep)


def _remove(folder: RunDir | SweepDir) -> None:
    """Remove a run or a sweep from the trackers and the disk."""
    if isinstance(folder, RunDir) and (sweep := sweep_of(folder)):
        note_reads(sweep)
    # the trackers first: they find their runs by the folder
    for line in tracking.delete(folder):
        output.say(line)
    remove_folder(folder.path)
