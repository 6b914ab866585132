"""MLflow as a tracker."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from dlrun.errors import UserError
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.content.state import MADE, outputs_of
from dlrun.tracking.mlflow import removal
from dlrun.tracking.mlflow.connection import MlflowConnection, connect
from dlrun.tracking.mlflow.diagnosis import explain
from dlrun.tracking.mlflow.names.token import read_token
from dlrun.tracking.mlflow.store import creation_time, quiet_mlflow
from dlrun.tracking.mlflow.uri import artifact_folder, check_address, check_authority, check_driver, store_address


class Mlflow:
    """MLflow, at `MLFLOW_TRACKING_URI` or in `outputs/mlflow.db`."""

    name = "mlflow"
    title = "MLflow"
    sorts = True

    def check(self, *, system_metrics: bool = False) -> None:
        check_address()
        check_driver()
        check_authority()
        read_token()
        if system_metrics and importlib.util.find_spec("psutil") is None:
            raise UserError(
                "tracking.system_metrics=true needs the package psutil, which is not installed.\n"
                "Type `pip install psutil`, or leave tracking.system_metrics at false."
            )

    def location(self, folder: RunDir | SweepDir) -> str:
        # by the folder's own path, which its address may not have
        given = os.environ.get("MLFLOW_TRACKING_URI")
        if given:
            return str(store_address(folder))
        file = outputs_of(folder) / "mlflow.db"
        return f"sqlite:///{file}{MADE}{creation_time(file)}"

    def connect(self, folder: RunDir | SweepDir) -> MlflowConnection:
        quiet_mlflow()
        return connect(store_address(folder), artifact_folder(folder))

    def explain(self, folder: RunDir | SweepDir, error: Exception) -> str | None:
        return explain(error, store_address(folder))

    def link(self, folder: RunDir | SweepDir) -> str:
        return folder.summary().mlflow_url or f"dlrun ui {folder.id}"

    def delete(self, folder: RunDir | SweepDir) -> Path | None:
        """Move a run or whole sweep to MLflow's trash.

        The runs that a sweep reused stay where they were trained. `mlflow gc` empties the trash.
        """
        return removal.delete(folder)
