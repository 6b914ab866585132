"""What MLflow is shown of a run or a sweep, by a process of its own.

Training appends to the journal of its folder and does no more. `start` spawns the uploader of a run,
`start_sweep` the one of a sweep and all its jobs: it imports MLflow, sends what the folders hold,
watches the trainers and gives the MLflow runs their true status at the end, after SIGKILL too. What it
could not send, `dlrun sync` sends later.
"""

from dlrun.tracking.mlflow.uri import check, check_uri, store_uri
from dlrun.tracking.pending import pending, pending_sweep
from dlrun.tracking.removal import delete, delete_sweep
from dlrun.tracking.start import Uploader, bury, start, start_sweep, sync_in_background
from dlrun.tracking.state import link

__all__ = [
    "Uploader",
    "bury",
    "check",
    "check_uri",
    "delete",
    "delete_sweep",
    "link",
    "pending",
    "pending_sweep",
    "start",
    "start_sweep",
    "store_uri",
    "sync_in_background",
]
