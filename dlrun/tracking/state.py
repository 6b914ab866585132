"""What of a run MLflow has: the note of it in the summary, and how that is compared with the folder."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dlrun.rundir import RunDir
from dlrun.tracking.where import has_server, redacted, store_uri

FINAL = ("finished", "failed", "killed", "pruned")


def ended(run: RunDir) -> bool:
    """Return whether nothing more is to come: the status is final, or nobody trains in the folder."""
    return run.summary().get("status") in FINAL or not run.alive()


def stamp(run: RunDir, summary: dict[str, Any]) -> str:
    """Return what a store was given, as text: it differs once there is more to send, or another store."""
    said = [summary.get(key) for key in ("status", "metrics", "last", "test_reads", "best_step")]
    size = run.journal.stat().st_size if run.journal.exists() else 0
    digest = hashlib.sha256(json.dumps([said, size], sort_keys=True).encode()).hexdigest()[:16]
    return f"{digest} {redacted(store_uri(run))}"


def pending(run: RunDir) -> bool:
    """Return whether MLflow lacks something of the run."""
    summary = run.summary()
    return not summary.get("uploaded") or summary.get("uploaded_stamp") != stamp(run, summary)


def link(run: RunDir) -> str:
    """Return where a person finds the run in MLflow: an address, or the command that opens it."""
    address = run.summary().get("mlflow_url")
    return str(address) if address else f"dlrun ui {run.id}"


def page(uri: str, experiment_id: str, run_id: str) -> str | None:
    """Return the address of a run's page on a tracking server, or None for a store without one."""
    if not has_server(uri) or not uri.startswith("http"):
        return None
    return f"{redacted(uri).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


@contextmanager
def only_uploader(run: RunDir) -> Iterator[bool]:
    """Hold the uploader's lock of a folder if it is free; yield whether it is held."""
    with (run.path / ".uploader.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
