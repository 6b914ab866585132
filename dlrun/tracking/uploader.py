"""The uploader's process, one for each tracker: sends runs or sweeps, one after the other.

It outlives the trainer and its terminal, and runs at the lowest priority. While a tracker is away it tries again,
ever more slowly; a few minutes after the end of the run it gives up, and `dlrun sync` sends the rest.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from dlrun.storage.files.waiting import pause
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal.escape import visible
from dlrun.tracking.content.run_source import LoadModel, of_run
from dlrun.tracking.content.state import has_ended, only_uploader
from dlrun.tracking.mlflow.names.secrets import hiding, message
from dlrun.tracking.pending import is_pending, is_unattended
from dlrun.tracking.sweep_upload import Report, SweepUpload
from dlrun.tracking.tracker import Tracker
from dlrun.tracking.trackers import TRACKERS
from dlrun.tracking.upload import POLL, RunUpload, follow

# seconds for which a tracker that is away is tried after the end of the run
PATIENCE = 180.0


def send(
    folder: RunDir | SweepDir,
    tracker: Tracker,
    *,
    patience: float = PATIENCE,
    load_model: LoadModel | None = None,
    report: Report | None = None,
) -> bool | None:
    """Send a run or whole sweep until its end.

    Returns whether all is there; None if another process is sending it. Errors go to `report`, by default a line on
    the standard error.
    """
    report = report or partial(print_error, tracker=tracker)
    told: list[str] = []

    def tell(error: Exception) -> bool:
        """Report an error, the same one once; returns whether it may go away by itself."""
        if str(error) not in told[-1:]:
            told.append(str(error))
            report(folder, error)
        return tracker.explain(folder, error) is None

    def attempt() -> None:
        if isinstance(folder, SweepDir):
            SweepUpload(folder, tracker, report, load_model).follow()
        else:
            follow(RunUpload(of_run(folder, load_model), tracker, tracker.connect(folder)))

    # A trainer that resumes while the last run's rest is sent starts an uploader that finds this one at work and
    # ends. So the folder is looked at once more after the lock was freed.
    while True:
        with only_uploader(folder.path, tracker.name) as mine:
            if not mine:
                return None
            sent = _insist(folder, attempt, patience, tell)
        if has_ended(folder) and (not sent or not _lacks(folder, tracker)):
            return sent


def _lacks(folder: RunDir | SweepDir, tracker: Tracker) -> bool:
    return is_unattended(folder, tracker) if isinstance(folder, SweepDir) else is_pending(folder, tracker)


def _insist(
    folder: RunDir | SweepDir, attempt: Callable[[], None], patience: float, tell: Callable[[Exception], bool]
) -> bool:
    """Attempt it until `patience` seconds after the run's end."""
    delay, deadline = 1.0, None
    # deleted or moved meanwhile: the store's folder must not be made again at the old place
    while folder.path.is_dir():
        try:
            attempt()
            return True
        except Exception as error:  # whatever the store, the network or a file has: later, again
            passing = tell(error)
        if not folder.path.is_dir():
            break
        if has_ended(folder):
            folder.status()
            deadline = deadline or time.monotonic() + patience
            if not passing or time.monotonic() + delay > deadline:
                return False
        else:
            deadline = None  # in training, perhaps again: patience begins at the end
        pause(delay)
        delay = min(2 * delay, 30.0)  # soon again after a hiccup, seldom while the tracker is away
    return False


def print_error(folder: RunDir | SweepDir, error: Exception, tracker: Tracker | None = None) -> None:
    """Write a line: what to type, if the tracker knows, else the error."""
    why = tracker.explain(folder, error) if tracker else None
    said = " ".join(why.splitlines()) if why else message(error)
    print(f"{datetime.now():%H:%M:%S} {folder.id}: {visible(said)}", file=sys.stderr, flush=True)


def give_way() -> None:
    """Take the lowest priority, and outlive the terminal."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Nothing is taken from the trainer: on Linux the uploader runs on idle processors only. It stays in the trainer's
    # session, for where Linux shares the machine out between sessions first (`sched_autogroup_enabled`), one of its own
    # would get a part of the processors that the trainer's threads wait for.
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)


def catch_up(folders: Sequence[RunDir | SweepDir]) -> None:
    """Take an ordinary priority once nothing is trained."""
    while not all(map(has_ended, folders)):
        pause(POLL)
    # Somebody waits at the prompt now. The system permits it to a superuser, as in most containers; elsewhere the
    # priority stays the lowest. The process's id stands for its main thread, which sends: 0 would be this thread.
    with suppress(PermissionError):
        os.sched_setscheduler(os.getpid(), os.SCHED_OTHER, os.sched_param(0))


def main(argv: Sequence[str]) -> int:
    """Send folders to a tracker; returns the number of failures."""
    parser = argparse.ArgumentParser(prog="python -m dlrun.tracking.uploader")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--tracker", choices=TRACKERS, default="mlflow")
    parser.add_argument("--model-loader", metavar="MODULE:FUNCTION", help="a `LoadModel` (default: send no models)")
    options = parser.parse_args(argv)
    # libraries and tracebacks write to the log too
    sys.stdout, sys.stderr = hiding(sys.stdout), hiding(sys.stderr)
    give_way()
    tracker, load_model = TRACKERS[options.tracker], _loader(options.model_loader)
    folders = [SweepDir(p) if (p / "manifest.json").is_file() else RunDir(p) for p in options.folders]
    if hasattr(os, "SCHED_IDLE"):
        threading.Thread(target=catch_up, args=(folders,), daemon=True).start()
    return sum(send(folder, tracker, load_model=load_model) is False for folder in folders)


def _loader(name: str | None) -> LoadModel | None:
    if name is None:
        return None
    module, _, function = name.partition(":")

    def load(run: RunDir) -> Any:
        # imported when the first model is sent, for most uploads have none
        return getattr(import_module(module), function)(run)

    return load


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
