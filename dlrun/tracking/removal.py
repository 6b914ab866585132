"""Removing runs and sweeps from MLflow, when their folders are removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dlrun.errors import UserError
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.mlflow.store import quiet_mlflow
from dlrun.tracking.mlflow.uri import sqlite_file, store_uri


def delete(run: RunDir) -> None:
    """Move the run to MLflow's trash (`mlflow gc` empties it); a run that MLflow does not have is no error.

    Raises `UserError` if the store cannot be reached.
    """
    _delete(run, lambda client, run_id: [run_id])


def delete_sweep(sweep: SweepDir) -> None:
    """Move a sweep's parent and children to MLflow's trash, as `delete` does a run.

    The runs that it reused stay where they were trained.
    """

    def family(client: Any, run_id: str) -> list[str]:
        experiment = client.get_run(run_id).info.experiment_id
        return [*_pages(client, experiment, f"tags.`dlrun.sweeps` = '{sweep.id}'"), run_id]

    _delete(sweep, family)


def _pages(client: Any, experiment: str, wanted: str) -> list[str]:
    """Return the ids of all runs that fit, of which MLflow tells a thousand at a time."""
    found: list[str] = []
    token: str | None = ""
    while token is not None:
        page = client.search_runs([experiment], wanted, max_results=1000, page_token=token or None)
        found += [run.info.run_id for run in page]
        token = page.token or None
    return found


def _delete(folder: RunDir | SweepDir, runs: Callable[[Any, str], list[str]]) -> None:
    """Delete the MLflow runs that `runs(client, run_id)` names, if the store has the folder's own."""
    uri, summary = store_uri(folder), folder.summary()
    file, known = sqlite_file(uri), summary.mlflow_run_id
    never = summary.uploaded is None and not known
    if never or (file is not None and not file.exists()):
        return
    quiet_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=uri)
    try:
        for identifier in [known] if known else _own(client, folder.id):
            for run_id in runs(client, identifier):
                client.delete_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise UserError(f"The MLflow runs of {folder.path} cannot be deleted at {uri}: {error}") from None


def _own(client: Any, identifier: str) -> list[str]:
    """Return the MLflow run of a folder whose summary does not name it: its uploader died before its end."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`dlrun.id` = '{identifier}'")
    return [run.info.run_id for run in found]
