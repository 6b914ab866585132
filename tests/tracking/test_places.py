"""An outputs folder that is moved, and one at an odd place."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from dlrun import tracking
from dlrun.commands import sync
from dlrun.errors import DamagedFile
from dlrun.storage.rundir import RunDir
from dlrun.tracking import TRACKERS, uploader
from dlrun.tracking.mlflow import store
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.uri import store_address
from tests.facts import says
from tests.summaries import summarise
from tests.tracking.folders import CONFIG, METRICS, MakeRun, log

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ODD = "quote'\"`$(x)&;#?%41=+,[]{}"


def rows(outputs: Path, columns: str, table: str, more: str = "") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(outputs / "mlflow.db")) as database:
        return database.execute(f"SELECT {columns} FROM {table} {more}").fetchall()


def shown(run: RunDir) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(store_address(run).reveal()).get_run(run.summary().mlflow_run_id or "")


def move(outputs: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    outputs.rename(place)
    monkeypatch.setenv("DLRUN_OUTPUTS", str(place))
    return place


def test_an_uploader_that_tries_again_after_a_move_makes_nothing_at_the_old_place(
    make_run: MakeRun, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    log(run, range(5), end="finished")
    mlflow = TRACKERS["mlflow"]
    tried: list[int] = []

    def fail(folder: RunDir) -> None:
        tried.append(1)
        outputs.rename(outputs.with_name("moved"))
        raise ConnectionError

    monkeypatch.setattr(type(mlflow), "connect", lambda self, folder: fail(folder))
    assert uploader.send(run, mlflow, patience=60) is False
    assert tried == [1] and not outputs.exists()


@pytest.mark.parametrize("name", ["renamed", ODD])
def test_a_moved_outputs_folder_goes_on_where_it_is(
    name: str, make_run: MakeRun, outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    log(run, range(5), end="finished")
    assert sync.main([]) == 0
    place = move(outputs, outputs.with_name(name), monkeypatch)
    moved = RunDir(place / run.path.relative_to(outputs))
    assert not tracking.pending(moved), "all of it was sent, to the store that has moved along"
    assert sync.main([]) == 0
    assert rows(place, "status", "runs") == [("FINISHED",)]

    log(moved, range(5, 9), end="finished")
    assert sync.main([]) == 0
    assert not outputs.exists(), "nobody makes the old place again"
    assert len(rows(place, "status", "runs")) == 1
    page = shown(moved)
    assert page.info.status == "FINISHED"
    assert page.info.artifact_uri.startswith((place / "mlartifacts").as_uri())
    assert page.data.tags["mlflow.dlrun.folder"] == str(moved.path)
    assert [*place.glob("mlartifacts/*/*/artifacts/config/config.yaml")]
    locations = rows(place, "artifact_location", "experiments")
    assert all(location.startswith((place / "mlartifacts").as_uri()) for (location,) in locations)
    tracking.delete(moved)
    assert rows(place, "lifecycle_stage", "runs") == [("deleted",)]


def test_a_folder_whose_path_is_its_id_keeps_its_run(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(outputs / "runs" / "x" / "mine")
    (run.path / ".hydra").mkdir(parents=True)
    run.config.write_text(CONFIG)
    log(run, range(3), end="finished")
    assert sync.main([]) == 0
    place = move(outputs, outputs.with_name("it's"), monkeypatch)
    moved = RunDir(place / "runs" / "x" / "mine")
    log(moved, range(3, 6), end="finished")
    summarise(moved, mlflow_run_id=None, uploaded={"mlflow": False})  # as if it was never told
    assert sync.main([]) == 0
    assert len(rows(place, "status", "runs")) == 1


def test_a_store_that_is_reached_by_a_link_or_named_by_another_is_left_alone(
    make_run: MakeRun, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    log(run, range(3), end="finished")
    assert sync.main([]) == 0
    before = rows(outputs, "artifact_location", "experiments")
    (tmp_path / "link").symlink_to(outputs)
    monkeypatch.setenv("DLRUN_OUTPUTS", str(tmp_path / "link"))
    tracking.mark_unsent(run, TRACKERS["mlflow"])
    assert sync.main([]) == 0
    assert rows(outputs, "artifact_location", "experiments") == before
    other = tmp_path / "elsewhere" / "runs" / "d" / run.path.name
    shutil.copytree(run.path, other)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{outputs}/mlflow.db")
    assert uploader.send(RunDir(other), TRACKERS["mlflow"], patience=0)
    assert rows(outputs, "artifact_location", "experiments") == before


def test_what_was_sent_by_an_earlier_version_is_not_sent_again(make_run: MakeRun) -> None:
    run = make_run()
    log(run, range(3), end="finished")
    assert sync.main([]) == 0
    stamp = run.summary().to_dict()["uploaded_stamp"]["mlflow"]
    digest, _, location = stamp.partition(" ")
    assert location.startswith("sqlite:///{outputs}/mlflow.db#made=1")
    before = TRACKERS["mlflow"].location(run).partition("#")[0]
    summarise(run, uploaded_stamp={"mlflow": f"{digest} {before}"})
    assert not tracking.pending(run)
    summarise(run, uploaded_stamp={"mlflow": f"{digest} sqlite:////other/mlflow.db"})
    assert tracking.pending(run)


def test_a_run_that_was_copied_without_its_store_is_sent_to_that_of_its_new_place(
    make_run: MakeRun,
    outputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run()
    log(run, range(3), end="finished")
    assert sync.main([]) == 0
    laptop = outputs.with_name("laptop")
    shutil.copytree(outputs / "runs", laptop / "runs")
    monkeypatch.setenv("DLRUN_OUTPUTS", str(laptop))
    assert sync.main([]) == 0
    assert "sent: dlrun ui" in capsys.readouterr().out.splitlines()[-1]
    assert rows(laptop, "status", "runs") == [("FINISHED",)]
    (laptop / "mlflow.db").unlink()
    assert sync.main([]) == 0
    assert rows(laptop, "status", "runs") == [("FINISHED",)], "a store that was lost is filled again"


def test_an_odd_place_has_its_store_under_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = tmp_path / ODD / "outputs"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DLRUN_OUTPUTS", str(outputs))
    run = RunDir(outputs / "runs" / "x" / "mine")
    (run.path / ".hydra").mkdir(parents=True)
    run.config.write_text(CONFIG)
    log(run, range(3), end="finished")
    summarise(run, metrics=METRICS)
    assert sync.main([]) == 0
    assert sync.main(["--again"]) == 0
    assert rows(outputs, "status", "runs") == [("FINISHED",)]
    assert {place.name for place in tmp_path.iterdir()} == {ODD}
    summarise(run, mlflow_run_id=None)
    tracking.delete(run)  # by its tag, which has quotes
    assert rows(outputs, "lifecycle_stage", "runs") == [("deleted",)]


def test_the_cache_folder_may_have_an_odd_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLRUN_CACHE", str(tmp_path / ODD))
    # where the names go that an address can have
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    class Client:
        def __init__(self, address: str) -> None:
            database = make_url(address).database
            assert database
            with closing(sqlite3.connect(database)) as made:
                made.execute("CREATE TABLE made (x)")

        def search_experiments(self) -> None: ...

    monkeypatch.setattr("mlflow.MlflowClient", Client)
    template = store._template("1.0")
    assert template.parent == tmp_path / ODD
    with closing(sqlite3.connect(template)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("made",)]


def test_a_store_s_lock_is_written_through_no_link(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    (outputs / ".mlflow.db.lock").symlink_to(mine)
    with pytest.raises(DamagedFile, match=r"\.mlflow\.db\.lock is damaged: it is a link"):
        store.prepare(Address(f"sqlite:///{outputs}/mlflow.db"), outputs / "mlartifacts")
    assert mine.read_text() == "mine"


def altered(outputs: Path, column: str, table: str, value: str) -> None:
    with closing(sqlite3.connect(outputs / "mlflow.db")) as database, database:
        database.execute(f"UPDATE {table} SET {column} = ?", (value,))


@pytest.mark.parametrize(
    "where", ["file://{elsewhere}", "{elsewhere}", "s3://somebody/else", "file://{outputs}/mlartifacts/../.."]
)
@pytest.mark.parametrize(("column", "table"), [("artifact_uri", "runs"), ("artifact_location", "experiments")])
def test_a_received_store_does_not_say_where_files_go(
    where: str, column: str, table: str, make_run: MakeRun, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    log(run, range(3), end="finished")
    assert sync.main([]) == 0
    elsewhere = outputs.with_name("elsewhere")
    elsewhere.mkdir()
    place = where.format(elsewhere=elsewhere, outputs=outputs)
    altered(outputs, column, table, place)
    # `prepare` corrects what a move changed by the default experiment's location
    with closing(sqlite3.connect(outputs / "mlflow.db")) as database, database:
        kept = f"{(outputs / 'mlartifacts').as_uri()}/0"
        database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (kept,))
    tracking.mark_unsent(run, TRACKERS["mlflow"])
    capsys.readouterr()
    assert sync.main([]) == 1
    says("".join(capsys.readouterr()), place, "MLFLOW_TRACKING_URI=sqlite:///")
    assert not [*elsewhere.rglob("*")]


@pytest.mark.parametrize(
    "kind", ["TRIGGER odd AFTER INSERT ON runs BEGIN DELETE FROM tags; END", "VIEW odd AS SELECT 1"]
)
def test_a_received_store_has_no_statements_of_its_own(
    kind: str, make_run: MakeRun, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    log(run, range(3), end="finished")
    assert sync.main([]) == 0
    with closing(sqlite3.connect(outputs / "mlflow.db")) as database, database:
        database.execute(f"CREATE {kind}")
    tracking.mark_unsent(run, TRACKERS["mlflow"])
    capsys.readouterr()
    assert sync.main([]) == 1
    says("".join(capsys.readouterr()), "`odd`", "mlflow.db.other")


@pytest.mark.parametrize("name", ["mlflow.db", "mlflow.db-wal"])
def test_a_link_in_the_place_of_a_store_is_not_followed(
    name: str, make_run: MakeRun, outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    log(run, range(3), end="finished")
    mine = tmp_path / "mine"
    mine.write_bytes(b"")
    outputs.mkdir(exist_ok=True)
    (outputs / name).symlink_to(mine)
    assert sync.main([]) == 1
    says("".join(capsys.readouterr()), name, "link", "MLFLOW_TRACKING_URI")
    assert mine.read_bytes() == b""
