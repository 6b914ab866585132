"""What trackers are sent of runs and sweeps, and when; a folder a tracker says how.

Training appends to the journal of its folder and does no more. `start` spawns a process a tracker, which sends what
the folder holds, watches the trainer and gives the tracker's run its true status at the end, after SIGKILL too.
`dlrun sync` sends later what could not be sent.
"""

from collections.abc import Sequence

from dlrun.errors import UserError
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.pending import mark_unsent, pending
from dlrun.tracking.start import Uploader, mark_killed, start, sync_in_background
from dlrun.tracking.trackers import TRACKERS, trackers_of, unsent

__all__ = [
    "TRACKERS",
    "Uploader",
    "check",
    "delete",
    "link",
    "mark_killed",
    "mark_unsent",
    "pending",
    "start",
    "sync_in_background",
    "trackers_of",
    "unsent",
]


def check(backends: Sequence[str], *, system_metrics: bool = False) -> None:
    """Raise `UserError` if a tracker is missing or misconfigured."""
    if not backends:
        raise UserError("tracking.backends=[] names no tracker. Type tracking.enabled=false to send nothing.")
    for name in backends:
        TRACKERS[name].check(system_metrics=system_metrics)


def link(folder: RunDir | SweepDir) -> str:
    """The address at each tracker, or the command to type."""
    return ", ".join(tracker.link(folder) for tracker in trackers_of(folder))


def delete(folder: RunDir | SweepDir) -> list[str]:
    """Remove a run or whole sweep from all trackers.

    Returns a line for each tracker whose run belongs to another folder and is kept. Raises `UserError` if a tracker
    cannot be reached.
    """
    owners = {tracker.title: tracker.delete(folder) for tracker in TRACKERS.values()}
    return [
        f"{folder.path}: {title} keeps its run, which belongs to {owner}."
        for title, owner in owners.items()
        if owner is not None
    ]
