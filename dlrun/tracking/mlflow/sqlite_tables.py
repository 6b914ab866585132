"""A SQLite store, its tables written directly: MLflow takes three seconds to import, and 20 ms a run.

The rows are those of MLflow's own client: tests/tracking/test_sqlite_tables.py compares every table. They fit the
layouts of `SCHEMAS`. A store of another one, for example of a later MLflow, is written through the client.
"""

from __future__ import annotations

import math
import os
import re
import sqlite3
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from dlrun.tracking.content.journal_reader import Point
from dlrun.tracking.mlflow import sqlite_statements as sql
from dlrun.tracking.mlflow.backend import CONTEXT, StoredRun
from dlrun.tracking.mlflow.client import ClientBackend
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.uri import sqlite_file

# MLflow's names for the layouts of its tables to which the statements fit, by version: tests/tracking/test_layouts.py
# compares all tables after the same calls, with each version from the registry
SCHEMAS = {
    "1b5f0d9ad7c1": "3.10",
    "da6fb0208061": "3.13",
    "b7e4c1a90f23": "3.14",
    "6f8d9c3b2a1e": "3.15",
    "b7e2c1a4d9f3": "3.16",
    "dc11669786a5": "3.17",
    "f4a9b2c7d1e6": "3.18",
}
NAME = "mlflow.runName"
# stands for infinity
LARGEST = sys.float_info.max
# the characters of an experiment's name and folder that every MLflow takes
LONGEST = 250


def known_file(address: Address) -> Path | None:
    """The file of a SQLite store with a layout of `SCHEMAS`, else None."""
    file = sqlite_file(address)
    return file if file and _revision(file, address) in SCHEMAS else None


def describe_way(address: Address) -> str:
    """How runs get into a store."""
    file = sqlite_file(address)
    revision = _revision(file, address) if file else None
    if revision in SCHEMAS:
        return f"Runs are written into this store's tables, which are those of MLflow {SCHEMAS[revision]}."
    if revision:
        return f"Runs are sent by MLflow's client, which takes longer: dlrun does not know its tables {revision}."
    return "Runs are sent by MLflow's client."


def _revision(file: Path, address: Address) -> str | None:
    """MLflow's name for a file's layout; None where the tables are left to its client."""
    workspaces = os.environ.get("MLFLOW_ENABLE_WORKSPACES", "").lower() in ("true", "1")
    # workspaces, and drivers or options in the address, are left to MLflow's client
    if workspaces or address.reveal() != f"sqlite:///{file}":
        return None
    with closing(sqlite3.connect(file, timeout=sql.WAIT)) as database:
        try:
            revisions = database.execute(sql.REVISION).fetchall()
        except sqlite3.OperationalError:  # no such table: MLflow has not made this file
            return None
    return str(revisions[0][0]) if len(revisions) == 1 else None


class SqliteBackend:
    """The store in a SQLite file.

    Any call raises `sqlite3.Error` if the file cannot be written, and `LookupError` for a run, or a new run's
    experiment, that was deleted meanwhile.
    """

    def __init__(self, file: Path, address: Address) -> None:
        self._address = address
        # without a level, Python begins no transactions of its own
        self._database = sqlite3.connect(file, timeout=sql.WAIT, isolation_level=None)
        self._database.execute("PRAGMA foreign_keys = ON")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self._database.in_transaction:  # the outer one commits
            yield
            return
        # the write lock at once: SQLite does not wait for one that a reader asks for later
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    def experiment(self, name: str, artifacts: Path) -> str:
        found = self._experiment(name)
        if found is None and 0 < len(name) <= LONGEST and len(artifacts.as_uri()) <= LONGEST:
            with self.transaction():
                if (found := self._experiment(name)) is None:
                    now = time.time_ns() // 1_000_000
                    self._database.execute(sql.EXPERIMENT, (name, artifacts.as_uri(), now, now))
                    found = self._experiment(name)
        # MLflow restores an experiment together with its runs, and says why it refuses a name
        return found[0] if found and found[1] == "active" else ClientBackend(self._address).experiment(name, artifacts)

    def create(self, experiment_id: str, *, start: int, tags: Mapping[str, str]) -> StoredRun:
        run_id = uuid.uuid4().hex
        with self.transaction():
            found = self._database.execute(sql.PLACE, (experiment_id,)).fetchone()
            if found is None:
                raise LookupError(f"The experiment {experiment_id} was deleted in MLflow while runs of it were sent.")
            place = join_uri(found[0], run_id, "artifacts")
            row = (run_id, tags[NAME], tags.get("mlflow.user", "unknown"), start, place, experiment_id)
            self._database.execute(sql.RUN, row)
            self._database.executemany(sql.TAG, [(*tag, run_id) for tag in tags.items()])
        return StoredRun(run_id, place, tags=dict(tags))

    def find(self, experiment_id: str, identifier: str) -> StoredRun | None:
        row = self._database.execute(sql.FIND, (identifier, experiment_id)).fetchone()
        if row is None:
            return None
        run_id, place, status, deleted = row
        params = dict(self._database.execute(sql.PARAMS, (run_id,)))
        metrics = {name for (name,) in self._database.execute(sql.CURVES, (run_id,))}
        inputs = set(self._database.execute(sql.USED, (run_id,)))
        return StoredRun(run_id, place, params, self.tags(run_id), metrics, inputs, status, bool(deleted))

    def restore(self, run_id: str) -> None:
        self._database.execute(sql.RESTORE, (run_id,))

    def reopen(self, run_id: str) -> None:
        self._database.execute(sql.REOPEN, (run_id,))

    def log(
        self,
        run_id: str,
        points: Sequence[Point],
        params: Sequence[tuple[str, str]],
        tags: Sequence[tuple[str, str]],
    ) -> None:
        rows = [(p.name, *_number(p.value), p.time, run_id, p.step) for p in points]
        replaced = [(run_id, p.name, p.step) for p in points if p.replaces]
        with self._of_active(run_id):
            self._database.executemany(sql.PARAM, [(*param, run_id) for param in params])
            for statement in (sql.REPLACE, sql.REPLACE_LATEST):
                self._database.executemany(statement, replaced)
            self._database.executemany(sql.METRIC, rows)
            self._database.executemany(sql.LATEST, rows)
            self._database.executemany(sql.TAG, [(*tag, run_id) for tag in tags])
            for name in (value for key, value in tags if key == NAME):
                self._database.execute(sql.RENAME, (name, run_id))

    def add_inputs(self, experiment_id: str, run_id: str, datasets: Sequence[Mapping[str, Any]]) -> None:
        with self._of_active(run_id):
            for fields in datasets:
                self._add_input(experiment_id, run_id, fields)

    def tags(self, run_id: str) -> dict[str, str]:
        return dict(self._database.execute(sql.TAGS, (run_id,)))

    def tagged(self, experiment_id: str, name: str, sweep: str) -> dict[str, str]:
        return dict(self._database.execute(sql.TAGGED, (name, sweep, experiment_id)))

    def untag(self, run_id: str, name: str) -> None:
        self._database.execute(sql.UNTAG, (run_id, name))

    def history(self, run_id: str, name: str) -> set[tuple[int, float]]:
        rows = self._database.execute(sql.CURVE, (run_id, name))
        return {(step, math.nan if none else value) for step, value, none in rows}

    def close(self, run_id: str, status: str, end: int) -> None:
        with self._of_active(run_id):
            self._database.execute(sql.CLOSE, (status, end, run_id))

    def _experiment(self, name: str) -> tuple[str, str] | None:
        """The id and stage of an experiment: `active` or `deleted`."""
        row = self._database.execute(sql.NAMED, (name,)).fetchone()
        return (str(row[0]), row[1]) if row else None

    @contextmanager
    def _of_active(self, run_id: str) -> Iterator[None]:
        """One transaction; raises `LookupError` if the run is deleted."""
        with self.transaction():
            if self._database.execute(sql.ACTIVE, (run_id,)).fetchone() is None:
                raise LookupError(f"The run {run_id} was deleted in MLflow while it was sent.")
            yield

    def _add_input(self, experiment_id: str, run_id: str, fields: Mapping[str, Any]) -> None:
        key = experiment_id, fields["name"], fields["digest"]
        row = (uuid.uuid4().hex, *key, fields["source_type"], fields["source"], fields["profile"])
        self._database.execute(sql.DATASET, row)
        ((dataset,),) = self._database.execute(sql.WHICH, key)
        # a run that has the data set already has its tag too
        edge = uuid.uuid4().hex
        if self._database.execute(sql.INPUT, (edge, dataset, run_id)).rowcount == 1:
            self._database.execute(sql.INPUT_TAG, (edge, CONTEXT, fields["name"].rpartition("/")[2]))


def join_uri(folder: str, *parts: str) -> str:
    """Join a folder and names as MLflow does."""
    # plain paths and file URIs need no import of MLflow
    if not {"?", "#"} & set(folder) and re.match(r"(file://)?/[^/]", folder):
        return "/".join([folder.rstrip("/"), *parts])
    from mlflow.utils import uri

    join: Any = uri.append_to_uri_path
    return str(join(folder, *parts))


def _number(value: float) -> tuple[float, int]:
    """A value for the tables, and their flag for NaN."""
    # MLflow's columns have neither NaN nor infinity
    return (0.0, 1) if math.isnan(value) else (max(-LARGEST, min(value, LARGEST)), 0)
