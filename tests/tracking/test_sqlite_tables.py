"""A SQLite store written directly has the rows that MLflow's own client leaves, in every table."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dlrun import tracking
from dlrun.storage.journal import Journal
from dlrun.storage.rundir import RunDir
from dlrun.tracking import TRACKERS, uploader
from dlrun.tracking.content.journal_reader import Point
from dlrun.tracking.mlflow import sqlite_tables
from dlrun.tracking.mlflow.artifacts import Artifacts
from dlrun.tracking.mlflow.backend import Backend
from dlrun.tracking.mlflow.client import ClientBackend
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.sqlite_tables import SqliteBackend, join_uri, known_file
from dlrun.tracking.mlflow.store import prepare
from dlrun.tracking.mlflow.uri import store_address
from tests import processes
from tests.summaries import summarise

# MLflow's own use of SQLAlchemy is not ours to mend
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROOT = Path(tracking.__file__).parents[2]
CONFIG = "{name: study, seed: 0, optimizer: {lr: 0.1}, tracking: {experiment: a study, tags: {who: ada}}}"
NOW = 1_790_000_000_000
TAGS = {"dlrun.id": "ab12cd", "mlflow.runName": "study-ab12cd", "mlflow.user": "ada"}


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    monkeypatch.setenv("DLRUN_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("MLFLOW_LOGGING_LEVEL", "ERROR")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def store(folder: Path) -> tuple[Path, Address]:
    """Return a new store's file and address."""
    file = folder / "mlflow.db"
    address = Address(f"sqlite:///{file}")
    prepare(address, folder / "artifacts")
    return file, address


def rows(file: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return the content of all tables; what MLflow draws by chance, or reads from a clock, is numbered."""
    with closing(sqlite3.connect(file)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {name: database.execute(f'SELECT * FROM "{name}" ORDER BY rowid').fetchall() for name in names}
        drawn = [key for (key,) in database.execute("SELECT run_uuid FROM runs ORDER BY rowid")]
        drawn += [key for (key,) in database.execute("SELECT dataset_uuid FROM datasets ORDER BY rowid")]
        drawn += [key for (key,) in database.execute("SELECT input_uuid FROM inputs ORDER BY rowid")]
    found["experiments"] = [(*row[:4], *row[6:]) for row in found["experiments"]]

    def plain(value: Any) -> Any:
        for number, key in enumerate(drawn):
            value = value.replace(key, f"#{number}") if isinstance(value, str) else value
        return value.replace(str(file.parent), "") if isinstance(value, str) else value

    return {name: sorted((tuple(map(plain, row)) for row in content), key=repr) for name, content in found.items()}


def dataset(split: str, digest: str = "f" * 16) -> dict[str, str]:
    name = f"digits/{split}"
    return {"name": name, "digest": digest, "source_type": "dlrun", "source": "{}", "profile": '{"num_rows": 3}'}


def use(backend: Backend, artifacts: Path) -> None:
    """Do with a store all that an upload does, and some of it twice."""
    experiment = backend.experiment("a study", artifacts)
    assert backend.experiment("a study", artifacts) == experiment
    run = backend.create(experiment, start=NOW, tags=TAGS).run_id
    points = [Point("loss", 1 / (1 + step), NOW + step, step) for step in (0, 1, 5)]
    points += [Point("loss", 9.0, NOW, 3), Point("error", 0.0, NOW, 2), Point("error", math.nan, NOW, 2)]
    points += [Point("norm", math.nan, NOW, 1), Point("norm", math.inf, NOW, 1), Point("norm", -math.inf, NOW, 1)]
    backend.log(run, points, [("lr", "0.1"), ("ü", "…")], [("a", "1"), ("b", "")])
    backend.log(run, [*points[:3], Point("loss", 0.25, NOW + 6, 5)], [], [("a", "2"), ("mlflow.runName", "renamed")])
    backend.add_inputs(experiment, run, [dataset("train"), dataset("test")])
    backend.add_inputs(experiment, run, [dataset("train"), dataset("train", "e" * 16)])
    backend.close(run, "KILLED", NOW + 7)
    found = backend.find(experiment, "ab12cd")
    assert found and found.run_id == run and found.status == "KILLED"
    assert (found.params, found.metrics) == ({"lr": "0.1", "ü": "…"}, {"loss", "error", "norm"})
    assert found.inputs == {("digits/train", "f" * 16), ("digits/test", "f" * 16), ("digits/train", "e" * 16)}
    assert found.tags == backend.tags(run) == TAGS | {"a": "2", "b": "", "mlflow.runName": "renamed"}
    backend.log(run, [], [], [("dlrun.sweep", "feed"), ("dlrun.selected", "true")])
    assert backend.tagged(experiment, "dlrun.selected", "feed") == {run: "true"}
    assert backend.tagged(experiment, "dlrun.selected", "fee") == backend.tagged(experiment, "nothing", "feed") == {}
    backend.untag(run, "dlrun.selected")
    assert backend.tagged(experiment, "dlrun.selected", "feed") == {}
    assert backend.history(run, "loss") == {(p.step, p.value) for p in points[:4]} | {(5, 0.25)}
    backend.reopen(run)
    again = backend.find(experiment, "ab12cd")
    assert again and again.status == "RUNNING"
    with backend.transaction():
        other = backend.create(experiment, start=NOW + 1, tags=TAGS | {"dlrun.id": "ef"}).run_id
        backend.log(other, points[:1], [("lr", "0.2")], [("dlrun.progress", "80")])
        backend.add_inputs(experiment, other, [dataset("train")])
        backend.close(other, "FINISHED", NOW + 9)
    assert backend.find(experiment, "nobody") is None


def test_every_call_leaves_the_rows_that_mlflow_leaves(tmp_path: Path) -> None:
    left = []
    for name in ("direct", "mlflow"):
        file, address = store(tmp_path / name)
        use(
            SqliteBackend(file, address) if name == "direct" else ClientBackend(address),
            file.parent / "artifacts" / "a_study",
        )
        left.append(rows(file))
    assert sum(map(len, left[0].values())) > 40
    assert left[0] == left[1]


def test_a_deleted_run_is_not_written_and_comes_back(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    file, address = store(tmp_path)
    direct, mlflow = SqliteBackend(file, address), MlflowClient(address.reveal())
    experiment = direct.experiment("a study", tmp_path / "artifacts")
    run = direct.create(experiment, start=NOW, tags=TAGS).run_id
    mlflow.delete_run(run)
    with pytest.raises(LookupError, match="deleted in MLflow"):
        direct.log(run, [Point("loss", 1.0, NOW, 0)], [], [])
    found = direct.find(experiment, "ab12cd")
    assert found and found.deleted
    direct.restore(run)
    direct.log(run, [Point("loss", 1.0, NOW, 0)], [], [])
    assert mlflow.get_run(run).info.lifecycle_stage == "active"
    mlflow.delete_experiment(experiment)
    with pytest.raises(LookupError, match="deleted in MLflow"):
        direct.create(experiment, start=NOW, tags=TAGS | {"dlrun.id": "ef"})
    assert direct.experiment("a study", tmp_path / "artifacts") == experiment
    assert mlflow.get_experiment(experiment).lifecycle_stage == "active"


def test_a_point_takes_the_place_of_an_earlier_one_of_its_step(tmp_path: Path) -> None:
    file, address = store(tmp_path)
    direct, mlflow = SqliteBackend(file, address), ClientBackend(address)._client
    run = direct.create(direct.experiment("a study", tmp_path / "artifacts"), start=NOW, tags=TAGS).run_id
    direct.log(run, [Point("loss", 1.0, NOW, 0), Point("loss", 2.0, NOW, 1), Point("error", 2.0, NOW, 1)], [], [])
    # neither a lower value nor an earlier time hides it in the tables
    direct.log(run, [Point("loss", 1.5, NOW - 9, 1, replaces=True), Point("new", 1.0, NOW, 1, replaces=True)], [], [])
    direct.log(run, [Point("loss", math.nan, NOW, 0, replaces=True)], [], [])
    history = {m.step: m.value for m in mlflow.get_metric_history(run, "loss")}
    assert math.isnan(history.pop(0)) and history == {1: 1.5}
    assert mlflow.get_run(run).data.metrics == {"loss": 1.5, "error": 2.0, "new": 1.0}


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    file, address = store(tmp_path)
    direct = SqliteBackend(file, address)
    experiment = direct.experiment("a study", tmp_path / "artifacts")
    before = rows(file)
    with pytest.raises(KeyboardInterrupt), direct.transaction():
        direct.log(direct.create(experiment, start=NOW, tags=TAGS).run_id, [], [("lr", "0.1")], [])
        raise KeyboardInterrupt
    assert rows(file) == before


def test_only_a_layout_that_is_known_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, address = store(tmp_path)
    assert known_file(address) == file
    assert known_file(Address(f"{address.reveal()}?timeout=3")) is None
    assert known_file(Address("http://127.0.0.1:5000")) is None
    assert known_file(Address(f"sqlite:///{tmp_path}/other.db")) is None
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
        assert known_file(address) is None
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'later'")
    assert known_file(address) is None


@pytest.mark.parametrize("folder", ["file:///a/b%20c", "/a/b/", "s3://bucket/a?x=1", "dbfs:/a", "a/b", "file:///"])
def test_folders_are_joined_as_mlflow_joins_them(folder: str) -> None:
    from mlflow.utils import uri

    join: Any = uri.append_to_uri_path
    assert join_uri(folder, "run", "artifacts") == join(folder, "run", "artifacts")


def test_files_lie_where_mlflow_looks_for_them(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    here = tmp_path / "ä b"
    file, address = store(here)
    direct = SqliteBackend(file, address)
    found = direct.create(direct.experiment("e", here / "c d"), start=NOW, tags=TAGS)
    (tmp_path / "pages" / "figures").mkdir(parents=True)
    (tmp_path / "pages" / "figures" / "a.svg").write_text("<svg/>")
    (tmp_path / "train.log").write_text("done")
    place = Artifacts(address, found.run_id, found.artifact_uri)
    place.send_folder(tmp_path / "pages", "report")
    place.send_folder(tmp_path / "pages", None)
    place.send_file(tmp_path / "train.log", "log")
    place.send_text("To be", "samples/step-01.txt")
    mlflow = MlflowClient(address.reveal())
    for name in ("report/figures", "figures", "log", "samples"):
        assert len(mlflow.list_artifacts(found.run_id, name)) == 1, name
    fetched = mlflow.download_artifacts(found.run_id, "samples/step-01.txt", str(tmp_path))
    assert Path(fetched).read_text() == "To be"


MakeRun = Callable[[str], RunDir]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return what writes a run's folder below outputs of its own, of 900 steps: several calls."""

    def make(place: str) -> RunDir:
        run = RunDir(tmp_path / place / "runs" / "2026-11-22" / "120000-study-ab12cd")
        run.config.parent.mkdir(parents=True)
        run.config.write_text(CONFIG)
        journal = Journal(run.journal)
        for step in range(900):
            record = {"step": step, "epoch": step, "time": NOW / 1000 + step, "metrics": {"train/loss": 1 / (step + 1)}}
            journal._append(record)
        journal.close()
        data = {"name": "digits", "fingerprint": "f" * 64, "train": 3, "validation": 2, "test": 1}
        summarise(
            run, status="finished", command="dlrun train", data=data, metrics={"test/error": 0.25}, hostname="here"
        )
        return run

    return make


def shape(left: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows without the folders and digests that differ from one place to another."""
    left = left | {"tags": [row for row in left["tags"] if "folder" not in row[0] and "note" not in row[0]]}
    return left | {"runs": [row[:-3] for row in left["runs"]]}


def test_an_upload_shows_the_same_either_way(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    left = []
    for place in ("direct", "mlflow"):
        run = make_run(place)
        assert uploader.send(run, TRACKERS["mlflow"], patience=0) is True
        left.append(shape(rows(run.path.parents[2] / "mlflow.db")))
        monkeypatch.setattr(sqlite_tables, "SCHEMAS", {})
    assert len(left[0]["metrics"]) == 1801
    assert left[0] == left[1]


DYING = """
import os, sqlite3, sys
from pathlib import Path
from dlrun.storage.rundir import RunDir
from dlrun.tracking import TRACKERS, uploader
left, connect = [int(sys.argv[2])], sqlite3.connect
class Dying(sqlite3.Connection):
    def count(self):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), 9)
    def execute(self, *what):
        self.count()
        return super().execute(*what)
    def executemany(self, *what):
        self.count()
        return super().executemany(*what)
sqlite3.connect = lambda *where, **how: connect(*where, factory=Dying, **how)
uploader.send(RunDir(Path(sys.argv[1])), TRACKERS["mlflow"])
"""


def test_killed_at_any_statement_it_goes_on(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    whole, run = make_run("whole"), make_run("killed")
    assert uploader.send(whole, TRACKERS["mlflow"], patience=0) is True
    deaths = 0
    for statement in (12, 17, 21, 25, 30, 200):
        command = [sys.executable, "-c", DYING, str(run.path), str(statement)]
        deaths += processes.run(command, server="mlflow").returncode == -signal.SIGKILL
    assert deaths >= 4
    assert run.summary().uploaded == {"mlflow": True}
    left = [shape(rows(one.path.parents[2] / "mlflow.db")) for one in (whole, run)]
    assert left[0] == left[1]


def test_a_local_store_is_filled_without_mlflow(make_run: MakeRun) -> None:
    run = make_run("here")
    prepare(store_address(run), run.path)
    code = f"""
import sys
from pathlib import Path
from dlrun.storage.rundir import RunDir
from dlrun.tracking import TRACKERS, uploader
assert uploader.send(RunDir(Path({str(run.path)!r})), TRACKERS["mlflow"]) is True
assert not {{"mlflow", "sqlalchemy", "torch", "pandas"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=dict(os.environ))
