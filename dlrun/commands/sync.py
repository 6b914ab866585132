"""`dlrun sync`: complete runs and sweeps in the trackers, and correct their status."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path

from dlrun import tracking
from dlrun.errors import DamagedFile
from dlrun.runs.export.for_trackers import load_model
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.lookup import all_runs, all_sweeps, locate, locate_sweep, outputs, read_each, sweep_of
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal import output
from dlrun.terminal.arguments import Parser
from dlrun.tracking import uploader
from dlrun.tracking.content.settings import config_of, setting
from dlrun.tracking.content.state import has_uploader
from dlrun.tracking.mlflow.names.secrets import hiding
from dlrun.tracking.sweep_upload import IN_A_ROW
from dlrun.tracking.tracker import Tracker

Folder = RunDir | SweepDir
# seconds to wait for another process that sends the same folder, if --patience is less
OTHER = 10.0


def main(argv: list[str]) -> int:
    """Send runs and sweeps; returns 1 if not all is sent."""
    parser = Parser(
        prog="dlrun sync",
        description="Send to MLflow and other trackers what they lack of these runs and sweeps (default: all), and "
        "correct the status of those that were killed.",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN|SWEEP", help="folders, or the beginnings of ids")
    parser.add_argument("--again", action="store_true", help="send all of it again, after the store was lost")
    parser.add_argument(
        "--patience", type=float, default=0.0, metavar="SECONDS", help="how long to try (default: once)"
    )
    options = parser.parse_args(argv)
    chosen = [find_any(reference) for reference in options.runs] or all_tracked()
    # once a tracker, before anything is sent
    for tracker in {tracker.name: tracker for folder in chosen for tracker in tracking.trackers_of(folder)}.values():
        tracker.check(system_metrics=False)
    # before the comparison: a corrected status is to be sent
    tracking.mark_killed(chosen)
    lacking = {folder: tracking.trackers_of(folder) if options.again else tracking.pending(folder) for folder in chosen}
    lacking = {folder: trackers for folder, trackers in lacking.items() if trackers}
    for folder, trackers in lacking.items() if options.again else ():
        for tracker in trackers:
            # should this be interrupted, the rest is still lacking
            with suppress(PermissionError, DamagedFile):  # told when it is sent
                tracking.mark_unsent(folder, tracker)
    if not lacking:
        output.say(
            f"Nothing is left to send of {count(chosen)}." if chosen else f"Nothing is to be sent under {outputs()}."
        )
        return 0
    # what libraries print of an address has its password
    with redirect_stderr(hiding(sys.stderr)):
        return _send_each(lacking, options.patience)


def find_any(reference: str) -> Folder:
    """The sweep or run of a folder or an id.

    Raises `UserError` if the name fits none or several.
    """
    return locate_sweep(reference) or locate(reference, what="run or sweep")


def all_tracked() -> list[Folder]:
    """All tracked sweeps, and tracked runs outside of them."""
    runs = [run for run, tracked in read_each(all_runs(), _is_tracked) if tracked and not _in_a_sweep(run)]
    return [*runs, *(sweep for sweep, tracked in read_each(all_sweeps(), _is_tracked) if tracked)]


def count(folders: Sequence[Folder]) -> str:
    """In words: `the 2 runs and the one sweep`."""
    sweeps = sum(isinstance(folder, SweepDir) for folder in folders)
    runs = len(folders) - sweeps
    found = [_number(n, noun) for n, noun in ((runs, "run"), (sweeps, "sweep")) if n]
    return " and ".join(found) or _number(0, "run")


def _number(n: int, noun: str) -> str:
    return f"the one {noun}" if n == 1 else f"the {n} {noun}s"


class _Sender:
    """Sends folders in turn, and leaves out those of a store that is away or broken."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        # by store, the failures in a row
        self._failed: dict[str, int] = {}
        # by store, what is said of it
        self._told: dict[str, str] = {}
        # by what is said, the folders that were not tried
        self.skipped: dict[str, int] = {}
        self.complete = True

    def send(self, folder: Folder, tracker: Tracker) -> None:
        """Send a folder to a tracker, and say how it went."""
        place = tracker.location(folder)
        # after three failures in a row it is away, and each further try would wait for it
        if self._failed.get(place, 0) >= IN_A_ROW:
            cause = self._told[place]
            self.skipped[cause] = self.skipped.get(cause, 0) + 1
            return
        errors: list[Exception] = []
        sent = self._try(folder, tracker, errors)
        why = next((told for error in reversed(errors) if (told := tracker.explain(folder, error))), None)
        output.say(f"{folder.id}  {folder.summary().status}  {_result(folder, tracker, sent, why)}")
        self._told[place] = f"{tracker.title}: {why}" if why else f"{tracker.title} does not answer."
        if not (why and any(_is_own(folder, error) for error in errors)):
            self._failed[place] = 0 if sent is not False else IN_A_ROW if why else self._failed.get(place, 0) + 1
        self.complete = self.complete and bool(sent)

    def _try(self, folder: Folder, tracker: Tracker, errors: list[Exception]) -> bool | None:
        def report(subject: Folder, error: Exception) -> None:
            errors.append(error)
            if not tracker.explain(subject, error):
                uploader.print_error(subject, error)

        end = time.monotonic() + max(self._patience, OTHER)
        while True:
            try:
                sent = uploader.send(folder, tracker, patience=self._patience, load_model=load_model, report=report)
            except OSError as error:  # a folder of somebody else, a full disk
                report(folder, error)
                return False
            if sent is not None or time.monotonic() > end:
                return sent
            # what the other uploader leaves is sent here
            wait_until(lambda: not has_uploader(folder.path, tracker.name), max(0.0, end - time.monotonic()), poll=0.2)


def _send_each(lacking: dict[Folder, list[Tracker]], patience: float) -> int:
    """Send runs and sweeps in turn; returns the exit code."""
    sender = _Sender(patience)
    for folder, trackers in lacking.items():
        try:
            if not _start_beside(folder):
                for tracker in trackers:
                    sender.send(folder, tracker)
        except DamagedFile as damage:  # it stops no other
            output.warn(f"Left out: {damage.path} is damaged: {damage.found}.")
            sender.complete = False
    for cause, left in sender.skipped.items():
        others = "other one was" if left == 1 else f"other {left} were"
        output.warn(f"{cause}\nSo the {others} not tried: type `dlrun sync` later.")
    return int(not sender.complete)


def _start_beside(folder: Folder) -> bool:
    """Start an uploader beside a run or sweep that is alive; False for others."""
    if not folder.alive():
        return False
    # it may have lost its uploader; if not, a second one ends at once
    if not tracking.start(folder).refused:
        output.say(f"{folder.id}  running: an uploader is at work beside it")
    return True


def _is_own(folder: Folder, error: Exception) -> bool:
    """A file of the run or sweep may not be used; the store is not to blame."""
    return isinstance(error, PermissionError) and Path(str(error.filename)).is_relative_to(folder.path)


def _result(folder: Folder, tracker: Tracker, sent: bool | None, why: str | None) -> str:
    if sent is None:
        return "not all is sent yet: another process is at it. Type `dlrun sync --patience 60` to wait for it."
    return f"sent: {tracker.link(folder)}" if sent else f"not sent: {why or f'{tracker.title} did not answer'}"


def _in_a_sweep(run: RunDir) -> bool:
    """Whether a run is sent with its sweep."""
    sweep = sweep_of(run)
    # a foreign launcher writes no manifest: its jobs are sent one by one
    return sweep is not None and sweep.manifest.exists()


def _is_tracked(folder: Folder) -> bool:
    folder.summary()  # one that is damaged is left out too
    # with `tracking.enabled=false` a folder is sent only if it is named
    return bool(setting(config_of(folder), "enabled", True))
