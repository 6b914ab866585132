"""What MLflow is shown of a run, by a process of its own.

Training appends to the journal of its folder and does no more. `start` spawns the uploader, which
imports MLflow, sends what the folder holds, watches the trainer and gives the MLflow run its true
status at the end, after SIGKILL too. What it could not send, `dlrun sync` sends later.
"""

from dlrun.tracking.removal import delete
from dlrun.tracking.start import Uploader, bury, start, sync_in_background
from dlrun.tracking.state import link, pending
from dlrun.tracking.where import check, check_uri, store_uri

__all__ = [
    "Uploader",
    "bury",
    "check",
    "check_uri",
    "delete",
    "link",
    "pending",
    "start",
    "store_uri",
    "sync_in_background",
]
