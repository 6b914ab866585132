"""An open store of MLflow, for all runs of one uploader."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from dlrun.storage.files.opening import open_regular
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.content.metadata import Metadata
from dlrun.tracking.content.run_source import RunSource
from dlrun.tracking.content.settings import experiment_of
from dlrun.tracking.content.shorten import shorten
from dlrun.tracking.content.state import has_ended, lock_file
from dlrun.tracking.mlflow.backend import Backend, StoredRun
from dlrun.tracking.mlflow.client import ClientBackend
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.names.limits import NAME, fit
from dlrun.tracking.mlflow.pages import addresses as pages
from dlrun.tracking.mlflow.run import MlflowRun, description_tags, mlflow_tags
from dlrun.tracking.mlflow.sqlite_tables import SqliteBackend, describe_way, known_file
from dlrun.tracking.mlflow.store import prepare
from dlrun.tracking.mlflow.store_paths import check_links, check_location, location_of
from dlrun.tracking.mlflow.uri import is_own, sqlite_file

# the bytes of a journal that one transaction may hold: other writers wait for it
SMALL = 100_000


@dataclass(frozen=True)
class MlflowConnection:
    """A store, ready for the installed MLflow."""

    address: Address
    artifacts: Path  # for new experiments, unless a server decides
    backend: Backend
    own_store: Path | None = None  # that of the outputs folder, which may have come from somebody else
    _experiments: dict[str, str] = field(default_factory=dict)

    def open_run(self, source: RunSource, metadata: Metadata, *, start: int) -> MlflowRun:
        experiment = self.experiment(experiment_of(source.config))
        parent = source.sweep.summary().mlflow_run_id if source.sweep else None
        own = {"mlflow.parentRunId": parent} if parent else {}
        new = _is_new(source)
        note_attempt(source.home)
        stored = self._open(experiment, source.name, mlflow_tags(metadata) | own, metadata, start=start, new=new)
        if not has_ended(source.run):
            self._reopen(stored)
        view = pages.of_run(experiment, stored.run_id)
        return MlflowRun(self.backend, self.address, experiment, stored, view, source, own)

    def open_sweep(self, sweep: SweepDir, name: str, experiment: str, metadata: Metadata, *, start: int) -> MlflowRun:
        experiment_id = self.experiment(experiment)
        new = not attempted(sweep.path) and not sweep.summary().mlflow_run_id
        note_attempt(sweep.path)
        stored = self._open(experiment_id, name, mlflow_tags(metadata), metadata, start=start, new=new)
        if not has_ended(sweep):
            self._reopen(stored)
        return MlflowRun(self.backend, self.address, experiment_id, stored, pages.of_sweep(experiment_id, sweep))

    def transaction(self, source: RunSource) -> AbstractContextManager[None]:
        """One transaction for a run that is new and small."""
        # others may wait for the experiment too: it is no part of the transaction
        self.experiment(experiment_of(source.config))
        journal = source.run.journal
        # MLflow itself sends it, and does not see the run of an open transaction
        beside = source.setting("log_model", False)
        if not beside and _is_new(source) and journal.exists() and journal.stat().st_size < SMALL:
            return self.backend.transaction()
        return nullcontext()

    def experiment(self, name: str) -> str:
        """The id of an experiment; it is made or restored."""
        if name not in self._experiments:
            folder = self.artifacts / fit(name, 100).replace("/", "_")
            found = self.backend.experiment(name, folder)
            if self.own_store and (place := location_of(self.own_store, found)):
                check_location(place, self.artifacts, self.own_store)
            self._experiments[name] = found
        return self._experiments[name]

    def _open(
        self, experiment_id: str, name: str, tags: Mapping[str, str], metadata: Metadata, *, start: int, new: bool
    ) -> StoredRun:
        """Find the run by its tag `dlrun.id`, or make it."""
        # a search takes as long as all else of a small run: none for a new one
        found = None if new else self.backend.find(experiment_id, tags["dlrun.id"])
        if found is None:
            named = {"mlflow.runName": shorten(name, NAME)} | description_tags(metadata.description)
            created = self.backend.create(experiment_id, start=start, tags={**tags, **named})
            return replace(created, uncertain=not new)
        if self.own_store:
            check_location(found.artifact_uri, self.artifacts, self.own_store)
        if found.deleted:
            self.backend.restore(found.run_id)
        return found

    def _reopen(self, stored: StoredRun) -> None:
        # an ended run that is sent again stays ended, should this be interrupted
        if stored.status != "RUNNING":
            self.backend.reopen(stored.run_id)


def connect(address: Address, artifacts: Path) -> MlflowConnection:
    """Open a store; it is made or migrated first."""
    own = sqlite_file(address) if is_own(address) else None
    if own:
        check_links(own)
    prepare(address, artifacts)
    file = known_file(address)
    if file is None and sqlite_file(address):
        print(describe_way(address), file=sys.stderr)  # into the uploader's log
    backend = SqliteBackend(file, address) if file else ClientBackend(address)
    return MlflowConnection(address, artifacts, backend, own)


def _is_new(source: RunSource) -> bool:
    return not attempted(source.home) and not source.record().mlflow_run_id


def attempted(folder: Path) -> bool:
    """Whether somebody made the folder's MLflow run, or tried to."""
    file = lock_file(folder, "mlflow")
    return file.exists() and file.stat().st_size > 0


def note_attempt(folder: Path) -> None:
    """Note in the lock file: a run is being made."""
    if attempted(folder):
        return
    with open_regular(lock_file(folder, "mlflow"), "a") as file:
        file.write("an MLflow run was made, or was about to be\n")
        file.flush()
        os.fsync(file.fileno())  # a machine that goes down in between must not make two
