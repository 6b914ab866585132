"""The state of a folder that is sent: ended or not, the stamp of what there is to send, the uploader's lock."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from dlrun.storage import lookup
from dlrun.storage.files.opening import open_regular
from dlrun.storage.rundir import RunDir, outputs_above
from dlrun.storage.summary import Summary
from dlrun.storage.sweep_summary import SweepSummary
from dlrun.storage.sweepdir import SweepDir

# in the location of a store that lies in an outputs folder, before the time of its making
MADE = "#made="
FINAL = ("finished", "failed", "killed", "pruned")


def has_ended(folder: RunDir | SweepDir) -> bool:
    """Whether the status is final, or nobody works there."""
    summary = folder.summary()
    return bool(summary and summary.status in FINAL) or not folder.alive()


def outputs_of(folder: RunDir | SweepDir | None = None) -> Path:
    """The outputs folder of a run or sweep (None: current)."""
    # a run of another place keeps its own stores
    own = outputs_above(folder.path) if folder else None
    return own or lookup.outputs()


class Stamp(NamedTuple):
    """A hash of what is sent of a folder, with the place of the store that it is for.

    `now` names a store of the outputs folder relative to that, so that nothing is sent again after a move; behind
    `MADE` is when it was made, for a run's folder may be copied without it. `before` is as earlier versions wrote it.
    """

    now: str
    before: str


def run_stamp(run: RunDir, summary: Summary, location: str) -> Stamp:
    """A run's stamp."""
    # a journal only grows: its size stands for its lines
    size = run.journal.stat().st_size if run.journal.exists() else 0
    return _stamp(run, [summary.to_send(), size], location)


def sweep_stamp(sweep: SweepDir, summary: SweepSummary, location: str) -> Stamp:
    """A sweep's stamp, without its jobs: they have theirs."""
    files = [sweep.manifest, sweep.added, *sorted(file for file in sweep.report.rglob("*") if file.is_file())]
    sizes = [[str(file.relative_to(sweep.path)), file.stat().st_size] for file in files if file.exists()]
    return _stamp(sweep, [summary.to_send(), sizes], location)


def _stamp(folder: RunDir | SweepDir, content: list[Any], location: str) -> Stamp:
    digest = _digest(content)
    relative = location.replace(str(outputs_of(folder)), "{outputs}")
    return Stamp(f"{digest} {relative}", f"{digest} {location.partition(MADE)[0]}")


def _digest(said: list[Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def lock_file(folder: Path, tracker: str) -> Path:
    """The lock of a folder's uploader, one for each tracker."""
    # MLflow's has its name from when it was the only one
    return folder / (".uploader.lock" if tracker == "mlflow" else f".uploader.{tracker}.lock")


@contextmanager
def only_uploader(folder: Path, tracker: str) -> Iterator[bool]:
    """Take the uploader's lock; yields False if it is taken."""
    with open_regular(lock_file(folder, tracker), "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def has_uploader(folder: Path, tracker: str) -> bool:
    """True while a process sends a folder to a tracker."""
    with only_uploader(folder, tracker) as free:
        return not free
