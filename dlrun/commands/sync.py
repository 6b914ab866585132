"""`dlrun sync`: send to MLflow what it lacks of runs and sweeps, and set the true status of those that died."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dlrun import tracking
from dlrun.storage import manifest
from dlrun.storage.lookup import all_runs, all_sweeps, find, find_sweep, sweep_of
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal import output


def main(argv: list[str]) -> int:
    """Send every run and sweep that is not wholly in MLflow; return 1 if one could not be sent."""
    parser = argparse.ArgumentParser(
        prog="dlrun sync",
        description="Send to MLflow what it lacks of runs (of all runs, if none is named), with their true status.",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN|SWEEP", help="a folder, or the beginning of an id")
    parser.add_argument("--again", action="store_true", help="also runs that are marked as sent (after a lost store)")
    parser.add_argument("--patience", type=float, default=0.0, metavar="SECONDS", help="how long to try (0: once)")
    options = parser.parse_args(argv)
    tracking.check_uri()
    chosen = [named(reference) for reference in options.runs] or everything()
    tracking.bury(chosen)
    waiting = [folder for folder in chosen if options.again or _pending(folder)]
    if not waiting:
        output.say(f"MLflow has all of {counted(chosen)}.")
        return 0
    return _send_each(waiting, options.patience)


def named(reference: str) -> RunDir | SweepDir:
    """Return the sweep or the run that is named.

    Raises `UserError` if the name fits none or several.
    """
    return find_sweep(reference) or find(reference, what="run or sweep")


def everything() -> list[RunDir | SweepDir]:
    """Return all that was to be tracked, a sweep for its jobs."""
    alone = [run for run in all_runs() if not _in_a_sweep(run) and _tracked(run)]
    return [*alone, *(sweep for sweep in all_sweeps() if _tracked_sweep(sweep))]


def counted(folders: Sequence[RunDir | SweepDir]) -> str:
    """Return how many runs and sweeps these are: `the 2 runs and the one sweep`."""
    sweeps = sum(isinstance(folder, SweepDir) for folder in folders)
    runs = len(folders) - sweeps
    found = [_number(n, noun) for n, noun in ((runs, "run"), (sweeps, "sweep")) if n]
    return " and ".join(found) or _number(0, "run")


def _number(n: int, noun: str) -> str:
    return f"the one {noun}" if n == 1 else f"the {n} {noun}s"


def _send_each(folders: Sequence[RunDir | SweepDir], patience: float) -> int:
    """Send runs and sweeps in turn, until the store has failed three times in a row."""
    failed = in_a_row = 0
    for number, folder in enumerate(folders):
        in_a_row = in_a_row + 1 if _send(folder, patience) is False else 0
        failed += in_a_row > 0
        if in_a_row == 3 and number + 1 < len(folders):
            left = len(folders) - number - 1
            output.warn(f"The store does not answer, so the other {left} were not tried: type `dlrun sync` later.")
            break
    return int(failed > 0)


def _send(folder: RunDir | SweepDir, patience: float) -> bool | None:
    """Send one run or sweep and say how it went."""
    from dlrun.tracking.mlflow.store import quiet_mlflow
    from dlrun.tracking.uploader import send, send_sweep

    if folder.alive():
        # it may have lost its uploader; if not, a second one ends at once
        _ = tracking.start_sweep(folder) if isinstance(folder, SweepDir) else tracking.start(folder)
        output.say(f"{folder.id}  running: an uploader is at work beside it")
        return None
    quiet_mlflow()
    sent = send_sweep(folder, patience=patience) if isinstance(folder, SweepDir) else send(folder, patience=patience)
    status = folder.summary().status
    told = {True: f"sent: {tracking.link(folder)}", False: "not sent: the store did not answer", None: "is being sent"}
    output.say(f"{folder.id}  {status}  {told[sent]}")
    return sent


def _pending(folder: RunDir | SweepDir) -> bool:
    return tracking.pending_sweep(folder) if isinstance(folder, SweepDir) else tracking.pending(folder)


def _in_a_sweep(run: RunDir) -> bool:
    """Return whether the run is sent with its sweep: one of a foreign launcher has no manifest."""
    sweep = sweep_of(run)
    return sweep is not None and sweep.manifest.exists()


def _tracked(run: RunDir) -> bool:
    """Return whether the run was to be tracked: `tracking.enabled=false` stays out unless it is named."""
    from dlrun.tracking.describe import configuration

    return bool((configuration(run).get("tracking") or {}).get("enabled", True))


def _tracked_sweep(sweep: SweepDir) -> bool:
    jobs = manifest.read(sweep).jobs
    return not jobs or bool((jobs[0].config.get("tracking") or {}).get("enabled", True))
