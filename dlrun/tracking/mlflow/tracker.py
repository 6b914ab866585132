"""MLflow as a tracker."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dlrun.errors import UserError
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.mlflow import removal
from dlrun.tracking.mlflow.connection import MlflowConnection, connect
from dlrun.tracking.mlflow.store import quiet_mlflow
from dlrun.tracking.mlflow.uri import artifact_folder, check_uri, redact, store_uri


class Mlflow:
    """MLflow, at `MLFLOW_TRACKING_URI` or in `outputs/mlflow.db`."""

    name = "mlflow"
    title = "MLflow"

    def check(self, *, system_metrics: bool = False) -> None:
        check_uri()
        if system_metrics and importlib.util.find_spec("psutil") is None:
            raise UserError(
                "tracking.system_metrics=true needs the package psutil, which is not installed.\n"
                "Type `pip install psutil`, or leave tracking.system_metrics at false."
            )

    def location(self, folder: RunDir | SweepDir) -> str:
        return redact(store_uri(folder))

    def connect(self, folder: RunDir | SweepDir) -> MlflowConnection:
        quiet_mlflow()
        return connect(store_uri(folder), artifact_folder(folder))

    def link(self, folder: RunDir | SweepDir) -> str:
        return folder.summary().mlflow_url or f"dlrun ui {folder.id}"

    def delete(self, folder: RunDir | SweepDir) -> Path | None:
        """Move a run or whole sweep to MLflow's trash.

        The runs that a sweep reused stay where they were trained. `mlflow gc` empties the trash.
        """
        return removal.delete(folder)
