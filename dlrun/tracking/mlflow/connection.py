"""The way to a store: opened once by an uploader, for all runs that it sends."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from dlrun.tracking.describe import fit
from dlrun.tracking.mlflow.backend import Backend
from dlrun.tracking.mlflow.client import MlflowRun
from dlrun.tracking.mlflow.service import Service
from dlrun.tracking.mlflow.sqlite_tables import Tables, known
from dlrun.tracking.mlflow.store import prepare


@dataclass(frozen=True)
class Connection:
    """A store that is there and fit for the installed MLflow; `artifacts` is used where it has no server."""

    uri: str
    artifacts: Path
    backend: Backend
    _experiments: dict[str, str] = field(default_factory=dict)

    def open_run(self, experiment: str, *, tags: Mapping[str, str], start: int, new: bool = False) -> MlflowRun:
        """Return the run that carries the tag `dlrun.id`, made if it is missing, and RUNNING again.

        With `new`, nobody can have made it, and it is not looked for.
        """
        experiment_id = self.experiment(experiment)
        found = None if new else self.backend.find(experiment_id, tags["dlrun.id"])
        if found is None:
            found = self.backend.create(experiment_id, start=start, tags=tags)
        elif not found.running:
            self.backend.reopen(found.run_id)
        return MlflowRun(self.backend, self.uri, experiment_id, found)

    def together(self) -> AbstractContextManager[None]:
        """Have the calls of the block be one transaction, where the store can do that.

        Only for what cannot be there yet: points that are may undo the whole of it.
        """
        return self.backend.together()

    def experiment(self, name: str) -> str:
        """Return the id of an experiment, made if it is missing and brought back if it was deleted."""
        if name not in self._experiments:
            folder = self.artifacts / fit(name, 100).replace("/", "_")
            self._experiments[name] = self.backend.experiment(name, folder)
        return self._experiments[name]


def connect(uri: str, artifacts: Path) -> Connection:
    """Return the way to a store, which is made or migrated first."""
    prepare(uri, artifacts)
    file = known(uri)
    return Connection(uri, artifacts, Tables(file, uri) if file else Service(uri))
