"""The way to a store: opened once by an uploader, for all runs that it sends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlrun.tracking.client import MlflowRun
from dlrun.tracking.describe import fit
from dlrun.tracking.store import prepare
from dlrun.tracking.where import has_server


@dataclass(frozen=True)
class Connection:
    """A store that is there and fit for the installed MLflow; `artifacts` is used where it has no server."""

    uri: str
    artifacts: Path
    client: Any
    _experiments: dict[str, str] = field(default_factory=dict)

    def open_run(self, experiment: str, *, tags: Mapping[str, str], start: int, new: bool = False) -> MlflowRun:
        """Return the run that carries the tag `dlrun.id`, made if it is missing, and RUNNING again.

        With `new`, nobody can have made it, and it is not looked for.
        """
        experiment_id = self._experiment(experiment)
        found = None if new else self.find(experiment_id, tags["dlrun.id"])
        if found is None:
            run = self.client.create_run(experiment_id, start_time=start, tags=dict(tags))
            # what was sent is known: MLflow's answer leaves some of it out
            return MlflowRun(self, experiment_id, run.info.run_id, run.info.artifact_uri, tags=dict(tags))
        if found.info.lifecycle_stage == "deleted":
            self.client.restore_run(found.info.run_id)
        if found.info.status != "RUNNING":
            self.client.update_run(found.info.run_id, status="RUNNING")
        return MlflowRun(
            self,
            experiment_id,
            found.info.run_id,
            found.info.artifact_uri,
            params=dict(found.data.params),
            tags=dict(found.data.tags),
            metrics=set(found.data.metrics),
            inputs={(entry.dataset.name, entry.dataset.digest) for entry in found.inputs.dataset_inputs},
        )

    @contextmanager
    def together(self) -> Iterator[None]:
        """Have the calls of the block be one transaction, where MLflow opens the database itself: a third less time.

        Only for what cannot be there yet: points that are would undo the whole of it.
        """
        store = getattr(getattr(self.client, "_tracking_client", None), "store", None)
        make_session = getattr(store, "ManagedSessionMaker", None)
        if store is None or make_session is None:
            yield
            return
        with make_session(read_only=False) as session:
            commit, session.commit = session.commit, session.flush
            store.ManagedSessionMaker = lambda read_only=True: nullcontext(session)
            try:
                yield
            finally:
                store.ManagedSessionMaker, session.commit = make_session, commit

    def find(self, experiment_id: str, identifier: str) -> Any:
        """Return MLflow's run that carries the tag `dlrun.id`, deleted ones too; None if there is none."""
        from mlflow.entities import ViewType

        wanted = f"tags.`dlrun.id` = '{identifier}'"
        found = self.client.search_runs([experiment_id], wanted, run_view_type=ViewType.ALL, max_results=1)
        return found[0] if found else None

    def _experiment(self, name: str) -> str:
        """Return the id of an experiment, made if it is missing and brought back if it was deleted."""
        if name not in self._experiments:
            self._experiments[name] = self._find_experiment(name)
        return self._experiments[name]

    def _find_experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            folder = None if has_server(self.uri) else (self.artifacts / fit(name, 100).replace("/", "_")).as_uri()
            try:
                return str(self.client.create_experiment(name, artifact_location=folder))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.client.get_experiment_by_name(name)  # another run was first
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def connect(uri: str, artifacts: Path) -> Connection:
    """Return the way to a store, which is made or migrated first."""
    prepare(uri, artifacts)
    from mlflow import MlflowClient

    return Connection(uri, artifacts, MlflowClient(tracking_uri=uri))
