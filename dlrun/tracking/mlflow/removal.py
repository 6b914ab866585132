"""Removing runs and sweeps from MLflow, when their folders are removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dlrun.errors import UserError
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.content.owner import FOLDER_TAGS, other_owner
from dlrun.tracking.mlflow.client import open_client
from dlrun.tracking.mlflow.diagnosis import explain
from dlrun.tracking.mlflow.names.limits import tag_filter
from dlrun.tracking.mlflow.names.secrets import message
from dlrun.tracking.mlflow.names.tags import read_tag
from dlrun.tracking.mlflow.store import prepare, quiet_mlflow
from dlrun.tracking.mlflow.uri import artifact_folder, sqlite_file, store_address

# somebody has deleted it in MLflow already
GONE = "RESOURCE_DOES_NOT_EXIST"


def delete(folder: RunDir | SweepDir) -> Path | None:
    """Move a run or whole sweep to MLflow's trash.

    Returns the folder that it belongs to instead, if `folder` is a copy of that: then nothing is deleted. Raises
    `UserError` if the store cannot be reached.
    """
    address, summary = store_address(folder), folder.summary()
    file, known = sqlite_file(address), summary.mlflow_run_id
    # without a store nothing was ever sent, and MLflow need not be imported
    never = "mlflow" not in summary.uploaded and not known
    if never or (file is not None and not file.exists()):
        return None
    quiet_mlflow()
    try:
        prepare(address, artifact_folder(folder))
        client = open_client(address)
        return _delete(client, folder, known, local=file is not None)
    except Exception as error:  # whatever the store or the network has
        if getattr(error, "error_code", None) != GONE:
            why = explain(error, address) or f"{address}: {message(error)}"
            raise UserError(f"The MLflow runs of {folder.path} cannot be deleted. {why}") from None
    return None


def _delete(client: Any, folder: RunDir | SweepDir, known: str | None, *, local: bool) -> Path | None:
    # an uploader that died may not have put the id into the summary
    for run_id in [known] if known else _search_id(client, folder.id):
        stored = client.get_run(run_id).data.tags
        tags = {name: value for name in FOLDER_TAGS if (value := read_tag(stored, name)) is not None}
        if owner := other_owner(tags, folder.path, local=local):
            return owner
        if isinstance(folder, SweepDir):
            experiment = client.get_run(run_id).info.experiment_id
            for job in _search(client, [experiment], "dlrun.sweep", folder.id):
                client.delete_run(job)
        client.delete_run(run_id)
    return None


def _search_id(client: Any, identifier: str) -> list[str]:
    """Find a run's id by its tag."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return _search(client, experiments, "dlrun.id", identifier)


def _search(client: Any, experiments: list[str], tag: str, value: str) -> list[str]:
    """The ids of all runs with a tag."""
    found: list[str] = []
    token: str | None = ""
    # MLflow answers with a thousand at most
    while token is not None:
        page = client.search_runs(experiments, tag_filter(tag, value), max_results=1000, page_token=token or None)
        found += [run.info.run_id for run in page if run.data.tags.get(tag) == value]
        token = page.token or None
    return found
