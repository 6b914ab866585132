"""The uploader's process: `python -m dlrun.tracking.uploader FOLDER…`, of runs or of sweeps.

It outlives the trainer and its terminal, and runs at the lowest priority, so that it takes nothing
from the trainer. While a server is away it tries again, ever more slowly; a few minutes after the
end of the run it gives up, and `dlrun sync` sends the rest.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking import subject
from dlrun.tracking.mlflow.connection import connect
from dlrun.tracking.mlflow.store import quiet_mlflow
from dlrun.tracking.mlflow.uri import artifact_folder, store_uri
from dlrun.tracking.pending import pending, unattended
from dlrun.tracking.state import ended, only_uploader
from dlrun.tracking.sweep_upload import SweepUpload
from dlrun.tracking.upload import POLL, Upload, follow

PATIENCE = 180.0
"""Seconds for which a store that is away is tried after the end of the run."""


def send(run: RunDir, *, patience: float = PATIENCE) -> bool | None:
    """Send a run until it has ended and all is there; return whether it is, None if another process does that."""

    def attempt() -> None:
        connection = connect(store_uri(run), artifact_folder(run))
        follow(Upload(subject.alone(run), connection))

    return _send(run, attempt, lambda: pending(run), patience)


def send_sweep(sweep: SweepDir, *, patience: float = PATIENCE) -> bool | None:
    """Send a sweep with all its jobs until it has ended, as `send` does a run."""

    def attempt() -> None:
        SweepUpload(sweep, _report).follow()

    return _send(sweep, attempt, lambda: unattended(sweep), patience)


def _send(
    folder: RunDir | SweepDir, attempt: Callable[[], None], lacks: Callable[[], bool], patience: float
) -> bool | None:
    """Attempt it until the folder's work has ended and nothing is lacking.

    A trainer that resumes while the last run's rest is sent starts an uploader that finds this one
    at work and ends. So the folder is looked at once more after the lock was given back.
    """
    while True:
        with only_uploader(folder.path) as mine:
            if not mine:
                return None
            sent = _insist(folder, attempt, patience)
        if ended(folder) and (not sent or not lacks()):
            return sent


def _insist(folder: RunDir | SweepDir, attempt: Callable[[], None], patience: float) -> bool:
    delay, deadline = 1.0, None
    while True:
        try:
            attempt()
            return True
        except Exception as error:  # whatever the store, the network or a file has: later, again
            _report(folder, error)
        if ended(folder):
            folder.status()
            deadline = deadline or time.monotonic() + patience
            if time.monotonic() + delay > deadline:
                return False
        else:
            deadline = None
        time.sleep(delay)
        delay = min(2 * delay, 30.0)


def _report(folder: RunDir | SweepDir, error: Exception) -> None:
    what = str(error).strip().splitlines() or [""]
    told = f"{datetime.now():%H:%M:%S} {folder.id}: {type(error).__name__}: {what[0][:500]}"
    print(told, file=sys.stderr, flush=True)


def give_way() -> None:
    """Take the lowest priority, so that nothing is taken from the trainer, and outlive the terminal.

    On Linux that is what only idle processors run (`SCHED_IDLE`), within the trainer's session: where
    Linux shares the machine out between sessions first (`sched_autogroup_enabled`), a session of its
    own would get a part of the processors that the trainer's threads wait for.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


def catch_up(folders: Sequence[RunDir | SweepDir]) -> None:
    """Take an ordinary priority once nothing is trained any more: somebody waits at the prompt.

    The system permits it to a superuser, as in most containers; elsewhere the priority stays the lowest.
    """
    while not all(map(ended, folders)):
        time.sleep(POLL)
    with suppress(PermissionError):
        os.sched_setscheduler(os.getpid(), os.SCHED_OTHER, os.sched_param(0))


def main(paths: list[str]) -> int:
    """Send the runs and sweeps of some folders, one after the other; return how many could not be sent."""
    give_way()
    quiet_mlflow()
    folders = [SweepDir(p) if (p / "manifest.json").is_file() else RunDir(p) for p in map(Path, paths)]
    if hasattr(os, "SCHED_IDLE"):
        threading.Thread(target=catch_up, args=(folders,), daemon=True).start()
    sent = [send_sweep(folder) if isinstance(folder, SweepDir) else send(folder) for folder in folders]
    return sum(one is False for one in sent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
