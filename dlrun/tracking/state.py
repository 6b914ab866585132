"""What of a run or a sweep MLflow has: the note of it in the folder, and how that is compared with the folder."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import Summary, SweepSummary
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.mlflow.uri import has_server, redacted, store_uri

FINAL = ("finished", "failed", "killed", "pruned")
LOCK = ".uploader.lock"


def ended(folder: RunDir | SweepDir) -> bool:
    """Return whether nothing more is to come: the status is final, or nobody works in the folder."""
    summary = folder.summary()
    return bool(summary and summary.status in FINAL) or not folder.alive()


def stamp(run: RunDir, summary: Summary) -> str:
    """Return what a store was given, as text: it differs once there is more to send, or another store."""
    size = run.journal.stat().st_size if run.journal.exists() else 0
    return _digest([summary.to_send(), size], run)


def stamp_of_sweep(sweep: SweepDir, summary: SweepSummary) -> str:
    """Return what a store was given of the sweep itself; its jobs have stamps of their own."""
    files = [sweep.manifest, *sorted(file for file in sweep.report.rglob("*") if file.is_file())]
    sizes = [[str(file.relative_to(sweep.path)), file.stat().st_size] for file in files if file.exists()]
    return _digest([summary.to_send(), sizes], sweep)


def _digest(said: list[Any], folder: RunDir | SweepDir) -> str:
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
    return f"{digest} {redacted(store_uri(folder))}"


def link(folder: RunDir | SweepDir) -> str:
    """Return where a person finds the run or sweep in MLflow: an address, or the command that opens it."""
    return folder.summary().mlflow_url or f"dlrun ui {folder.id}"


def page(uri: str, view: str) -> str | None:
    """Return the address of a view on a tracking server, or None for a store without one."""
    return f"{redacted(uri).rstrip('/')}/#/{view}" if has_server(uri) and uri.startswith("http") else None


@contextmanager
def only_uploader(folder: Path) -> Iterator[bool]:
    """Hold the uploader's lock of a folder if it is free; yield whether it is held."""
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def attempted(folder: Path) -> bool:
    """Return whether somebody has made the folder's MLflow run, or tried to: a new one need not be looked for."""
    return (folder / LOCK).stat().st_size > 0


def note_attempt(folder: Path) -> None:
    """Note that the folder's MLflow run is about to be made; whoever holds the uploader's lock does this."""
    if attempted(folder):
        return
    with (folder / LOCK).open("a") as file:
        file.write("an MLflow run was made, or was about to be\n")
        file.flush()
        os.fsync(file.fileno())  # a machine that goes down in between must not make two
