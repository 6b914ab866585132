"""The uploader's process: `python -m dlrun.tracking.uploader FOLDER…`.

It outlives the trainer and its terminal, and runs at the lowest priority, so that it takes nothing
from the trainer. While a server is away it tries again, ever more slowly; a few minutes after the
end of the run it gives up, and `dlrun sync` sends the rest.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import datetime
from pathlib import Path

from dlrun.rundir import RunDir
from dlrun.tracking.state import ended, only_uploader, pending
from dlrun.tracking.store import quiet_mlflow
from dlrun.tracking.upload import Upload

PATIENCE = 180.0
"""Seconds for which a store that is away is tried after the end of the run."""


def send(run: RunDir, *, patience: float = PATIENCE) -> bool | None:
    """Send a run until it has ended and all is there; return whether it is, None if another process does that.

    A trainer that resumes while the last run's rest is sent starts an uploader that finds this one
    at work and ends. So the folder is looked at once more after the lock was given back.
    """
    while True:
        with only_uploader(run) as mine:
            if not mine:
                return None
            sent = _send_all(run, patience)
        if ended(run) and (not sent or not pending(run)):
            return sent


def _send_all(run: RunDir, patience: float) -> bool:
    delay, deadline = 1.0, None
    while True:
        try:
            Upload(run).follow()
            return True
        except Exception as error:  # whatever the store, the network or a file has: later, again
            _report(run, error)
        if ended(run):
            run.status()
            deadline = deadline or time.monotonic() + patience
            if time.monotonic() + delay > deadline:
                return False
        else:
            deadline = None
        time.sleep(delay)
        delay = min(2 * delay, 30.0)


def _report(run: RunDir, error: Exception) -> None:
    what = str(error).strip().splitlines() or [""]
    print(f"{datetime.now():%H:%M:%S} {run.id}: {type(error).__name__}: {what[0][:500]}", file=sys.stderr, flush=True)


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


def main(folders: list[str]) -> int:
    """Send the runs of `folders`, one after the other; return how many could not be sent."""
    give_way()
    quiet_mlflow()
    return sum(send(RunDir(Path(folder))) is False for folder in folders)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
