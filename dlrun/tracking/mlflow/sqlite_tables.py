"""A SQLite store, its tables written directly: MLflow takes three seconds to import, and 20 ms a run.

The rows are those that MLflow's own client leaves (tests/tracking/test_sqlite_tables.py compares every table), and only
the layout that they were written for is touched: `SCHEMA` is MLflow's name for it. A store of another layout, so
one that a later MLflow has migrated, is written through its client (`service`), and so is what is rare.
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

from dlrun.tracking.journal_reader import Point
from dlrun.tracking.mlflow import sqlite_statements as sql
from dlrun.tracking.mlflow.backend import CONTEXT, StoredRun
from dlrun.tracking.mlflow.service import Service
from dlrun.tracking.mlflow.uri import sqlite_file

SCHEMA = "dc11669786a5"
"""The revision of MLflow's tables that is known here: that of MLflow 3.17."""
NAME = "mlflow.runName"
LARGEST = sys.float_info.max
LONGEST = 250
"""Characters of an experiment's name and folder that every MLflow takes."""
WAIT = 60.0
"""Seconds for which another writer is waited for."""


def known(uri: str) -> Path | None:
    """Return the file of a store whose tables may be written directly, else None."""
    file = sqlite_file(uri)
    asked_otherwise = os.environ.get("MLFLOW_ENABLE_WORKSPACES", "").lower() in ("true", "1")
    if file is None or asked_otherwise or uri != f"sqlite:///{file}":
        return None
    with closing(sqlite3.connect(file, timeout=WAIT)) as database:
        try:
            revisions = database.execute(sql.REVISION).fetchall()
        except sqlite3.OperationalError:
            return None
    return file if revisions == [(SCHEMA,)] else None


class Tables:
    """The store in a SQLite file; each call is a transaction, unless it is within `together`.

    Any call raises `sqlite3.Error` if the file cannot be written, `LookupError` if a run, or the
    experiment of a new one, is deleted meanwhile.
    """

    def __init__(self, file: Path, uri: str) -> None:
        self._uri = uri
        self._database = sqlite3.connect(file, timeout=WAIT, isolation_level=None)
        self._database.execute("PRAGMA foreign_keys = ON")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Have the calls of the block be one transaction."""
        if self._database.in_transaction:
            yield
            return
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    def experiment(self, name: str, artifacts: Path) -> str:
        """Return the id of an experiment, made if it is missing and brought back if it was deleted."""
        found = self._experiment(name)
        if found is None and 0 < len(name) <= LONGEST and len(artifacts.as_uri()) <= LONGEST:
            with self.together():
                if (found := self._experiment(name)) is None:
                    now = time.time_ns() // 1_000_000
                    self._database.execute(sql.EXPERIMENT, (name, artifacts.as_uri(), now, now))
                    found = self._experiment(name)
        # it takes its runs along when it comes back, or its name is refused: MLflow's to do and to say
        return found[0] if found and found[1] == "active" else Service(self._uri).experiment(name, artifacts)

    def create(self, experiment_id: str, *, start: int, tags: Mapping[str, str]) -> StoredRun:
        """Make a run that is RUNNING since `start`, in milliseconds."""
        run_id = uuid.uuid4().hex
        with self.together():
            found = self._database.execute(sql.PLACE, (experiment_id,)).fetchone()
            if found is None:
                raise LookupError(f"The experiment {experiment_id} was deleted in MLflow while runs of it were sent.")
            place = joined(found[0], run_id, "artifacts")
            row = (run_id, tags[NAME], tags.get("mlflow.user", "unknown"), start, place, experiment_id)
            self._database.execute(sql.RUN, row)
            self._database.executemany(sql.TAG, [(*tag, run_id) for tag in tags.items()])
        return StoredRun(run_id, place, tags=dict(tags))

    def find(self, experiment_id: str, identifier: str) -> StoredRun | None:
        """Return the run that carries the tag `dlrun.id`, a deleted one too; `running` is false of that."""
        row = self._database.execute(sql.FIND, (identifier, experiment_id)).fetchone()
        if row is None:
            return None
        run_id, place, running = row
        params = dict(self._database.execute(sql.PARAMS, (run_id,)))
        metrics = {name for (name,) in self._database.execute(sql.CURVES, (run_id,))}
        inputs = set(self._database.execute(sql.USED, (run_id,)))
        return StoredRun(run_id, place, params, self.tags(run_id), metrics, inputs, bool(running))

    def reopen(self, run_id: str) -> None:
        """Have a run be RUNNING, and there, again."""
        self._database.execute(sql.REOPEN, (run_id,))

    def log(
        self,
        run_id: str,
        points: Sequence[Point],
        params: Sequence[tuple[str, str]],
        tags: Sequence[tuple[str, str]],
    ) -> None:
        """Store points, params and tags."""
        rows = [(p.name, *_number(p.value), p.time, run_id, p.step) for p in points]
        with self._of_active(run_id):
            self._database.executemany(sql.PARAM, [(*param, run_id) for param in params])
            self._database.executemany(sql.METRIC, rows)
            self._database.executemany(sql.LATEST, rows)
            self._database.executemany(sql.TAG, [(*tag, run_id) for tag in tags])
            for name in (value for key, value in tags if key == NAME):
                self._database.execute(sql.RENAME, (name, run_id))

    def add_inputs(self, experiment_id: str, run_id: str, datasets: Sequence[Mapping[str, Any]]) -> None:
        """Store which data a run used."""
        with self._of_active(run_id):
            for fields in datasets:
                self._add_input(experiment_id, run_id, fields)

    def tags(self, run_id: str) -> dict[str, str]:
        """Return the tags of a run as they are now."""
        return dict(self._database.execute(sql.TAGS, (run_id,)))

    def history(self, run_id: str, name: str) -> set[tuple[int, float]]:
        """Return the steps and values of a curve; of a value that is none, NaN."""
        rows = self._database.execute(sql.CURVE, (run_id, name))
        return {(step, math.nan if none else value) for step, value, none in rows}

    def close(self, run_id: str, status: str, end: int) -> None:
        """Set the final status and the time at which the run ended, in milliseconds."""
        with self._of_active(run_id):
            self._database.execute(sql.CLOSE, (status, end, run_id))

    def _experiment(self, name: str) -> tuple[str, str] | None:
        """Return the id and the stage of an experiment that is there."""
        row = self._database.execute(sql.NAMED, (name,)).fetchone()
        return (str(row[0]), row[1]) if row else None

    @contextmanager
    def _of_active(self, run_id: str) -> Iterator[None]:
        """Have the block be one transaction on a run that is there and not deleted."""
        with self.together():
            if self._database.execute(sql.ACTIVE, (run_id,)).fetchone() is None:
                raise LookupError(f"The run {run_id} was deleted in MLflow while it was sent.")
            yield

    def _add_input(self, experiment_id: str, run_id: str, fields: Mapping[str, Any]) -> None:
        key = experiment_id, fields["name"], fields["digest"]
        row = (uuid.uuid4().hex, *key, fields["source_type"], fields["source"], fields["profile"])
        self._database.execute(sql.DATASET, row)
        ((dataset,),) = self._database.execute(sql.WHICH, key)
        edge = uuid.uuid4().hex
        if self._database.execute(sql.INPUT, (edge, dataset, run_id)).rowcount == 1:
            self._database.execute(sql.INPUT_TAG, (edge, CONTEXT, fields["name"].rpartition("/")[2]))


def joined(folder: str, *parts: str) -> str:
    """Return the place below a folder that is given as a path or URI, as MLflow joins them."""
    if not {"?", "#"} & set(folder) and re.match(r"(file://)?/[^/]", folder):
        return "/".join([folder.rstrip("/"), *parts])
    from mlflow.utils import uri

    join: Any = uri.append_to_uri_path
    return str(join(folder, *parts))


def _number(value: float) -> tuple[float, int]:
    """Return a value as the tables hold it, and whether it is none: SQL has neither NaN nor infinity."""
    return (0.0, 1) if math.isnan(value) else (max(-LARGEST, min(value, LARGEST)), 0)
