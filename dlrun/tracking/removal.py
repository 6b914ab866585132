"""Removing a run from MLflow, when its folder is removed."""

from __future__ import annotations

from dlrun.errors import UserError
from dlrun.rundir import RunDir
from dlrun.tracking.store import quiet_mlflow
from dlrun.tracking.where import store_uri


def delete(run: RunDir) -> None:
    """Move the run to MLflow's trash (`mlflow gc` empties it); a run that MLflow does not have is no error.

    Raises `UserError` if the store cannot be reached.
    """
    identifier = run.summary().get("mlflow_run_id")
    if not identifier:
        return
    quiet_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = store_uri(run)
    try:
        MlflowClient(tracking_uri=uri).delete_run(identifier)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise UserError(f"The MLflow run of {run.path} cannot be deleted at {uri}: {error}") from None
