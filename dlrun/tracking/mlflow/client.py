"""MLflow's own client: the way to a server, to another database, and to tables of another MLflow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from dlrun.tracking.content.journal_reader import Point
from dlrun.tracking.mlflow.backend import CONTEXT, StoredRun
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.names.limits import tag_filter
from dlrun.tracking.mlflow.names.tags import PROGRESS, read_tag
from dlrun.tracking.mlflow.names.token import read_token
from dlrun.tracking.mlflow.uri import has_server

# how often MLflow sends a request again; it reads the variable for each
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


def open_client(address: Address) -> Any:
    """An `MlflowClient` with the token of now."""
    from mlflow import MlflowClient

    read_token()
    return MlflowClient(tracking_uri=address.reveal())


class ClientBackend:
    """The store at an address, through `MlflowClient`."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._opened = open_client(address)

    @property
    def _client(self) -> Any:
        read_token()  # for each call, as MLflow itself reads ~/.mlflow/credentials
        return self._opened

    def experiment(self, name: str, artifacts: Path) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                place = None if has_server(self._address) else artifacts.as_uri()
                with asked_once():
                    return str(self._client.create_experiment(name, artifact_location=place))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(name)  # another run was first
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def create(self, experiment_id: str, *, start: int, tags: Mapping[str, str]) -> StoredRun:
        with asked_once():
            run = self._client.create_run(experiment_id, start_time=start, tags=dict(tags))
        # what was sent is known: MLflow's answer leaves some of it out
        return StoredRun(run.info.run_id, run.info.artifact_uri, tags=dict(tags))

    def find(self, experiment_id: str, identifier: str) -> StoredRun | None:
        from mlflow.entities import ViewType

        wanted = tag_filter("dlrun.id", identifier)
        found = [
            _stored(run)
            for run in self._client.search_runs([experiment_id], wanted, run_view_type=ViewType.ALL, max_results=1000)
            if run.data.tags.get("dlrun.id") == identifier
        ]
        if not found:
            return None
        # the search has the newest first, and a person may have copied the tags of a run
        best = max(found, key=lambda run: (not run.is_empty, read_tag(run.tags, PROGRESS) is not None, not run.deleted))
        for run in found:
            if run is not best and run.is_empty and not run.deleted:
                self._client.delete_tag(run.run_id, "dlrun.id")
                self._client.delete_run(run.run_id)
        return best

    def restore(self, run_id: str) -> None:
        self._client.restore_run(run_id)

    def reopen(self, run_id: str) -> None:
        self._client.update_run(run_id, status="RUNNING")

    def log(
        self,
        run_id: str,
        points: Sequence[Point],
        params: Sequence[tuple[str, str]],
        tags: Sequence[tuple[str, str]],
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        self._client.log_batch(
            run_id,
            # it cannot remove the points that some replace; of one step, its tables show the latest
            metrics=[Metric(p.name, p.value, p.time, p.step) for p in points],
            params=[Param(*item) for item in params],
            tags=[RunTag(*item) for item in tags],
            synchronous=True,
        )

    def add_inputs(self, experiment_id: str, run_id: str, datasets: Sequence[Mapping[str, Any]]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        self._client.log_inputs(
            run_id,
            [
                DatasetInput(Dataset(**fields), [InputTag(CONTEXT, fields["name"].rpartition("/")[2])])
                for fields in datasets
            ],
        )

    def tags(self, run_id: str) -> dict[str, str]:
        return dict(self._client.get_run(run_id).data.tags)

    def tagged(self, experiment_id: str, name: str, sweep: str) -> dict[str, str]:
        from mlflow.entities import ViewType

        wanted = f"{tag_filter('dlrun.sweep', sweep)} AND tags.`{name}` LIKE '%'"
        found: dict[str, str] = {}
        token: str | None = ""
        while token is not None:
            runs = self._client.search_runs(
                [experiment_id], wanted, run_view_type=ViewType.ALL, max_results=1000, page_token=token or None
            )
            found |= {run.info.run_id: run.data.tags[name] for run in runs if run.data.tags["dlrun.sweep"] == sweep}
            token = runs.token or None
        return found

    def untag(self, run_id: str, name: str) -> None:
        self._client.delete_tag(run_id, name)

    def history(self, run_id: str, name: str) -> set[tuple[int, float]]:
        return {(there.step, there.value) for there in self._client.get_metric_history(run_id, name)}

    def close(self, run_id: str, status: str, end: int) -> None:
        self._client.set_terminated(run_id, status=status, end_time=end)

    def transaction(self) -> AbstractContextManager[None]:
        # the client has no transaction over several calls
        return nullcontext()


def _stored(run: Any) -> StoredRun:
    info, data = run.info, run.data
    return StoredRun(
        info.run_id,
        info.artifact_uri,
        params=dict(data.params),
        tags=dict(data.tags),
        metrics=set(data.metrics),
        inputs={(entry.dataset.name, entry.dataset.digest) for entry in run.inputs.dataset_inputs},
        status=info.status,
        deleted=info.lifecycle_stage == "deleted",
    )


@contextmanager
def asked_once() -> Iterator[None]:
    """Have MLflow send requests of the block once.

    If the answer is lost, the run was made all the same: the next try must look for it first.
    """
    before = os.environ.get(RETRIES)
    os.environ[RETRIES] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[RETRIES]
        else:
            os.environ[RETRIES] = before
