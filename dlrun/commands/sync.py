"""`dlrun sync`: send to MLflow what it lacks of runs, and set the true status of those that died."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dlrun import console, tracking
from dlrun.rundir import RunDir, all_runs, find


def main(argv: list[str]) -> int:
    """Send every run that is not wholly in MLflow; return 1 if one could not be sent."""
    parser = argparse.ArgumentParser(
        prog="dlrun sync",
        description="Send to MLflow what it lacks of runs (of all runs, if none is named), with their true status.",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN|SWEEP", help="a folder, or the beginning of an id")
    parser.add_argument("--again", action="store_true", help="also runs that are marked as sent (after a lost store)")
    parser.add_argument("--patience", type=float, default=0.0, metavar="SECONDS", help="how long to try (0: once)")
    options = parser.parse_args(argv)
    tracking.check_uri()
    runs = named(options.runs) if options.runs else [run for run in all_runs() if _tracked(run)]
    tracking.bury(runs)
    waiting = [run for run in runs if options.again or tracking.pending(run)]
    if not waiting:
        console.say(f"MLflow has all of {_counted(len(runs))}.")
        return 0
    return _send_each(waiting, options.patience)


def named(references: Sequence[str]) -> list[RunDir]:
    """Return the runs that are named, a sweep's jobs for the sweep.

    Raises `UserError` if a name fits no run or several.
    """
    runs: list[RunDir] = []
    for reference in references:
        jobs = sorted(Path(reference).absolute().glob("*/.hydra")) if not (Path(reference) / ".hydra").is_dir() else []
        runs += [RunDir(job.parent) for job in jobs] or [find(reference)]
    return runs


def _send_each(runs: Sequence[RunDir], patience: float) -> int:
    """Send runs in turn, until the store has failed three times in a row."""
    failed = in_a_row = 0
    for number, run in enumerate(runs):
        in_a_row = in_a_row + 1 if _send(run, patience) is False else 0
        failed += in_a_row > 0
        if in_a_row == 3 and number + 1 < len(runs):
            left = len(runs) - number - 1
            console.warn(f"The store does not answer, so the other {left} were not tried: type «dlrun sync» later.")
            break
    return int(failed > 0)


def _send(run: RunDir, patience: float) -> bool | None:
    """Send one run and say how it went."""
    from dlrun.tracking.store import quiet_mlflow
    from dlrun.tracking.uploader import send

    if run.alive():
        # it may have lost its uploader; if not, a second one ends at once
        tracking.start(run)
        console.say(f"{run.id}  running: an uploader is at work beside it")
        return None
    quiet_mlflow()
    sent = send(run, patience=patience)
    status = run.summary().get("status", "killed")
    told = {True: f"sent: {tracking.link(run)}", False: "not sent: the store did not answer", None: "is being sent"}
    console.say(f"{run.id}  {status}  {told[sent]}")
    return sent


def _tracked(run: RunDir) -> bool:
    """Return whether the run was to be tracked: `tracking.enabled=false` stays out unless it is named."""
    from dlrun.tracking.describe import configuration

    return bool((configuration(run).get("tracking") or {}).get("enabled", True))


def _counted(runs: int) -> str:
    return "the one run" if runs == 1 else f"the {runs} runs"
