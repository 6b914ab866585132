"""The private names and table layouts of MLflow that dlrun uses. Those of MLflow 3.17 are known.

A store of another layout is written through MLflow's own client; pyproject.toml allows no later minor, so that
whoever raises the bound meets these tests.
"""

from __future__ import annotations

import inspect
import sqlite3
import sys
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest

from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.sqlite_tables import SCHEMAS, known_file
from tests import processes
from tests.private_names import check_signature

KNOWN = "mlflow 3.17"
SCHEMA = next(revision for revision, of in SCHEMAS.items() if KNOWN.endswith(of))
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
# as `sqlite_statements` writes and reads them
LAYOUT = {
    "experiments": "experiment_id name artifact_location lifecycle_stage creation_time last_update_time workspace",
    "runs": "run_uuid name source_type source_name entry_point_name user_id status start_time end_time source_version "
    "lifecycle_stage artifact_uri experiment_id deleted_time",
    "metrics": "key value timestamp run_uuid step is_nan",
    "latest_metrics": "key value timestamp step is_nan run_uuid",
    "params": "key value run_uuid",
    "tags": "key value run_uuid",
    "datasets": "dataset_uuid experiment_id name digest dataset_source_type dataset_source dataset_schema "
    "dataset_profile",
    "inputs": "input_uuid source_type source_id destination_type destination_id step",
    "input_tags": "input_uuid name value",
}


@pytest.fixture
def store(here: Path) -> Path:
    # in a process of its own: MLflow's migrations leave generated classes behind, whose end disturbs later doctests
    program = (
        "import sys; from pathlib import Path; from dlrun.tracking.mlflow.names.address import Address; "
        "from dlrun.tracking.mlflow.store import prepare;"
        " prepare(Address(f'sqlite:///{sys.argv[1]}/mlflow.db'), Path(sys.argv[1], 'artifacts'))"
    )
    processes.run([sys.executable, "-c", program, str(here)], server="mlflow", check=True, timeout=120)
    return here / "mlflow.db"


@pytest.mark.parametrize("table", LAYOUT)
def test_a_table_has_the_known_columns(store: Path, table: str) -> None:
    with closing(sqlite3.connect(store)) as database:
        columns = [column for _, column, *_ in database.execute(f"PRAGMA table_info({table})")]
    assert set(columns) == set(LAYOUT[table].split()), f"{KNOWN} had others; installed is {version('mlflow')}"


def test_the_layout_has_the_known_name(store: Path) -> None:
    with closing(sqlite3.connect(store)) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [(SCHEMA,)], KNOWN
    assert known_file(Address(f"sqlite:///{store}")) == store


def test_a_database_is_migrated_as_ever() -> None:
    from mlflow.store.db import utils

    check_signature(utils._upgrade_db, "engine", known=KNOWN)


def test_requests_are_sent_again_as_often_as_a_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
    from mlflow.utils import rest_utils

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 0
    # for each request, not once at the import
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() if max_retries is None" in inspect.getsource(rest_utils.http_request)


def test_a_migration_is_a_file_that_begins_with_its_revision() -> None:
    from dlrun.tracking.mlflow.store import _is_known

    assert _is_known(SCHEMA), KNOWN
    assert not _is_known("ffffffffffff")


def test_files_that_are_being_written_are_not_listed(tmp_path: Path) -> None:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    (tmp_path / ".artifact.uploading.a.txt").write_text("half of it")
    (tmp_path / "a.txt").write_text("all of it")
    listed = [file.path for file in LocalArtifactRepository(tmp_path.as_uri()).list_artifacts()]
    assert listed == ["a.txt"]


def test_folders_are_joined_and_stores_found_by_the_known_functions() -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.utils.uri import append_to_uri_path

    check_signature(append_to_uri_path, "folder run artifacts", known=KNOWN)
    check_signature(get_artifact_repository, "artifact_uri tracking_uri=", known=KNOWN)


def test_numbers_in_yaml_are_read_by_omegaconf_s_own_rules() -> None:
    import yaml
    from omegaconf._utils import get_yaml_loader

    loader = get_yaml_loader()
    assert issubclass(loader, yaml.SafeLoader), "omegaconf 2.3"
    assert yaml.load("1e-3", Loader=loader) == 0.001
    assert yaml.safe_load("1e-3") == "1e-3", "PyYAML's own rules are others"
