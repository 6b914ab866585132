"""The layouts of MLflow's tables that are written directly: as recorded, and of each version from the registry."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from dlrun.tracking.content.journal_reader import Point
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.sqlite_tables import SCHEMAS, SqliteBackend, describe_way, known_file

ROOT = Path(__file__).parents[2]
# the statements that make the tables which dlrun writes, of empty stores of each version
RECORDED = json.loads(Path(__file__).with_name("layouts.json").read_text())


@pytest.mark.parametrize("revision", SCHEMAS)
def test_the_statements_fit_a_known_layout(tmp_path: Path, revision: str) -> None:
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file)) as database, database:
        for recorded in RECORDED:
            if revision in recorded["revisions"]:
                database.execute(recorded["table"])
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        database.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
    address = Address(f"sqlite:///{file}")
    assert known_file(address) == file
    assert SCHEMAS[revision] in describe_way(address)
    backend = SqliteBackend(file, address)
    experiment = backend.experiment("a study", tmp_path)
    run = backend.create(experiment, start=1, tags={"dlrun.id": "ab", "mlflow.runName": "a run"}).run_id
    for _ in range(2):
        backend.log(run, [Point("loss", 0.5, 2, 1)], [("lr", "0.1")], [("dlrun.sweep", "ff"), ("dlrun.selected", "1")])
        fields = {"name": "toy/train", "digest": "f", "source_type": "dlrun", "source": "{}", "profile": "{}"}
        backend.add_inputs(experiment, run, [fields])
    assert backend.tagged(experiment, "dlrun.selected", "ff") == {run: "1"}
    assert backend.history(run, "loss") == {(1, 0.5)}
    backend.close(run, "FINISHED", 9)
    found = backend.find(experiment, "ab")
    assert found and (found.status, found.params, found.inputs) == ("FINISHED", {"lr": "0.1"}, {("toy/train", "f")})


def test_an_unknown_layout_is_left_to_mlflow(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE alembic_version AS SELECT 'ffffffffffff' AS version_num")
    assert known_file(Address(f"sqlite:///{file}")) is None
    assert "ffffffffffff" in describe_way(Address(f"sqlite:///{file}"))


@pytest.mark.slow
@pytest.mark.skipif("DLRUN_REGISTRY" not in os.environ, reason="downloads MLflow's versions: set DLRUN_REGISTRY=1")
@pytest.mark.parametrize("version", SCHEMAS.values())
def test_each_version_of_the_registry_leaves_the_same_rows(tmp_path: Path, version: str) -> None:
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", str(tmp_path)]
    subprocess.run([*download, f"mlflow=={version}.*"], check=True)
    (wheel,) = tmp_path.glob("mlflow-*.whl")
    # the wheel has all of its modules; its dependencies are those of the installed version
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "mlflow")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "mlflow"), "DLRUN_CACHE": str(tmp_path / "cache")}
    environment.pop("PYTEST_CURRENT_TEST", None)
    compared = "every_call_leaves or same_either_way"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", compared]
    subprocess.run([*command, "tests/tracking/test_sqlite_tables.py"], check=True, cwd=ROOT, env=environment)
    assert [file.name for file in (tmp_path / "cache").glob("mlflow-*.db")] == [f"mlflow-{wheel.name.split('-')[1]}.db"]
