"""Runs as MLflow shows them, from folders that are written here by hand: no training is needed."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dlrun import tracking
from dlrun.errors import UserError
from dlrun.storage import run_config, summary
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.journal import Journal
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from dlrun.tracking import TRACKERS, uploader
from dlrun.tracking.content.journal_reader import BATCH, JournalReader, Mark, Point, Text
from dlrun.tracking.content.metadata import Metadata
from dlrun.tracking.content.run_source import of_run
from dlrun.tracking.content.state import only_uploader
from dlrun.tracking.mlflow import connection
from dlrun.tracking.mlflow.diagnosis import LaterStore
from dlrun.tracking.mlflow.run import MlflowRun
from dlrun.tracking.mlflow.store import prepare
from dlrun.tracking.mlflow.uri import check_address, store_address
from tests import processes
from tests.conftest import Called
from tests.facts import says
from tests.summaries import summarise
from tests.tracking.folders import CONFIG, MakeRun, log

# MLflow's own use of SQLAlchemy is not ours to mend
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROOT = Path(tracking.__file__).parents[2]
WAIT = 120.0
"""Far more than is needed: how long a busy machine may take is not what is tested."""


def send(run: RunDir) -> bool | None:
    return uploader.send(run, TRACKERS["mlflow"], patience=0)


def client(run: RunDir) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(store_address(run).reveal())


def shown(run: RunDir) -> Any:
    """Return the one run of MLflow that shows `run`."""
    mlflow = client(run)
    found = mlflow.search_runs([e.experiment_id for e in mlflow.search_experiments()], f"tags.`dlrun.id` = '{run.id}'")
    assert len(found) == 1
    return found[0]


def points(run: RunDir, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client(run).get_metric_history(shown(run).info.run_id, name)]


def expected(steps: int, scale: float = 1.0) -> list[tuple[int, float]]:
    return [(step, scale / (step + 1)) for step in range(steps)]


TRAINER = """
import sys, time
from pathlib import Path
from dlrun.storage.rundir import RunDir
run = RunDir(Path(sys.argv[1]))
with run.hold():
    with run.edit_summary() as summary:
        summary.status = "running"
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def trainer() -> Iterator[Callable[[RunDir], subprocess.Popen[str]]]:
    """Yield what starts a process that holds a run's folder, as a trainer does."""
    started: list[subprocess.Popen[str]] = []

    def start(run: RunDir) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", TRAINER, str(run.path)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        assert process.stdout and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def test_the_summary_of_an_ended_run_is_read_a_few_times(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each question that has to be asked anew: has it ended, was it resumed, has another uploader sent it."""
    run = make_run(status="finished", metrics={"val/error": 0.25}, best_step=1)
    log(run, range(3))
    read, seen = summary.read, list[Path]()
    monkeypatch.setattr(summary, "read", lambda folder, kind: (seen.append(folder), read(folder, kind))[1])
    assert send(run)
    assert shown(run).data.tags["dlrun.kind"] == "run"
    assert len(seen) <= 13


def test_a_finished_run_is_shown_complete_and_once(make_run: MakeRun) -> None:
    run = make_run(git={"commit": "abc", "dirty": True}, versions={"torch": "2.13.0"}, test_reads=1, parameters=17)
    log(run, range(1200), end="finished")
    run.figures.mkdir()
    (run.figures / "confusion.svg").write_text("<svg/>")
    assert send(run) is True
    assert not tracking.pending(run)

    page = shown(run)
    assert run.summary().mlflow_run_id == page.info.run_id
    assert page.info.status == "FINISHED"
    assert points(run, "train/loss") == expected(1200)
    assert points(run, "val/loss") == expected(1200, 2.0)
    assert points(run, "test/error") == [(5, 0.25)], "a metric without a curve is shown at the selected step"
    assert points(run, "val/error") == [(5, 0.2)]
    assert [points(run, f"best/{name}") for name in ("train/loss", "val/loss", "val/error")] == [
        [(5, 0.5)],
        [(5, 0.6)],
        [(5, 0.2)],
    ], "pages sort by the last value of a curve: the selected one is a metric of its own"
    assert page.data.params["model.hidden"] == "[3, 4]"
    assert page.data.params["optimizer.decay"] == "null"
    tags = page.data.tags
    assert (tags["who"], tags["mlflow.source.git.commit"], tags["mlflow.dlrun.git.dirty"]) == ("ada", "abc", "true")
    assert (tags["dlrun.test_reads"], tags["dlrun.kind"], tags["mlflow.version.torch"]) == ("1", "run", "2.13.0")
    # MLflow's pages hide those with its prefix
    assert sorted(name for name in tags if not name.startswith("mlflow.")) == [
        *("dlrun.id", "dlrun.kind", "dlrun.status", "dlrun.test_reads", "who")
    ]
    assert "dlrun train seed=0" in tags["mlflow.note.content"]
    assert "test/error 0.25" in tags["mlflow.note.content"]
    inputs = {entry.dataset.name: entry for entry in page.inputs.dataset_inputs}
    assert set(inputs) == {"mnist/train", "mnist/validation", "mnist/test"}
    assert inputs["mnist/test"].dataset.digest == "f" * 16
    assert inputs["mnist/test"].tags[0].value == "test"
    files = [
        file.path for folder in ("config", "figures") for file in client(run).list_artifacts(page.info.run_id, folder)
    ]
    assert files == ["config/config.yaml", "figures/confusion.svg"]

    # all of it once more changes nothing
    assert send(run) is True
    assert points(run, "train/loss") == expected(1200)
    assert points(run, "test/error") == [(5, 0.25)]


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have uploaders forked by what has imported MLflow."""
    monkeypatch.setattr(sys.modules["dlrun.tracking.start"], "subprocess", processes.UPLOADING)


def test_a_killed_trainer_becomes_killed_everywhere(make_run: MakeRun, trainer: Any) -> None:
    run = make_run()
    process = trainer(run)
    log(run, range(50))
    beside = tracking.start(run)
    assert wait_until(lambda: run.path.joinpath(".uploader.lock").exists(), WAIT)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert beside.wait(WAIT)
    assert run.summary().status == "killed"
    assert shown(run).info.status == "KILLED"
    assert points(run, "train/loss") == expected(50)


def test_a_resumed_run_goes_on_in_the_same_page(make_run: MakeRun, trainer: Any, forked: None) -> None:
    run = make_run()
    log(run, range(20))
    assert send(run)
    assert shown(run).info.status == "KILLED"

    run.config.write_text(CONFIG.replace("lr: 0.1", "lr: 0.2"))
    process = trainer(run)
    beside = tracking.start(run)
    assert wait_until(lambda: shown(run).info.status == "RUNNING", WAIT, poll=0.3)
    log(run, range(10, 30), end="finished")  # from a checkpoint that lies behind the last point
    process.kill()
    process.wait()
    assert beside.wait(WAIT)
    assert shown(run).info.status == "FINISHED"
    assert points(run, "train/loss") == expected(30)
    assert shown(run).data.tags["dlrun.changed"] == "optimizer.lr: 0.1 → 0.2"


def test_an_uploader_that_is_killed_leaves_no_gap_and_no_double(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    log(run, range(3000), end="finished")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    dying = """
import os, sys
from pathlib import Path
from dlrun.storage.rundir import RunDir
from dlrun.tracking import TRACKERS, uploader
from dlrun.tracking.mlflow.run import MlflowRun
send, calls = MlflowRun.send, []
def die(self, metadata=None, batch=None):
    calls.append(batch)
    if len(calls) == 3:
        # the points are in the store, the progress is not
        self._log(batch.points, {}, {})
        os.kill(os.getpid(), 9)
    send(self, metadata, batch)
MlflowRun.send = die
uploader.send(RunDir(Path(sys.argv[1])), TRACKERS["mlflow"])
"""
    command = [sys.executable, "-c", dying, str(run.path)]
    assert processes.run(command, server="mlflow").returncode == -signal.SIGKILL
    assert tracking.pending(run)
    assert 0 < len(points(run, "train/loss")) < 3000
    assert send(run) is True
    assert points(run, "train/loss") == expected(3000)
    assert points(run, "epoch") == [(step, step / 10) for step in range(3000)]


def test_a_second_uploader_leaves_the_folder_to_the_first(make_run: MakeRun) -> None:
    run = make_run()
    log(run, range(3), end="finished")
    with only_uploader(run.path, "mlflow") as mine:
        assert mine
        assert send(run) is None
    assert send(run) is True


def test_what_comes_while_the_rest_is_sent_is_sent_too(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer that resumes in that moment starts an uploader that finds the first at work and ends."""
    run = make_run()
    log(run, range(3), end="finished")
    close, seen = uploader.RunUpload.finish, []

    def finish(upload: uploader.RunUpload) -> None:
        close(upload)
        if not seen:
            seen.append(True)
            log(run, range(3, 6), end="finished")

    monkeypatch.setattr(uploader.RunUpload, "finish", finish)
    assert send(run) is True
    assert points(run, "train/loss") == expected(6)


def test_a_late_uploader_does_not_mark_a_resumed_run_as_sent(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    log(run, range(3), end="finished")
    send_files = MlflowRun.send_files

    def resume(self: MlflowRun, path: Path, folder: str) -> None:
        send_files(self, path, folder)
        summarise(run, status="running")  # as a trainer that begins in this moment

    monkeypatch.setattr(MlflowRun, "send_files", resume)
    upload = uploader.RunUpload(of_run(run), TRACKERS["mlflow"], TRACKERS["mlflow"].connect(run))
    upload.finish()
    assert run.summary().uploaded != {"mlflow": True}
    assert run.summary().mlflow_run_id
    assert tracking.pending(run)


def test_a_dead_server_loses_nothing(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    log(run, range(5))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert uploader.send(run, TRACKERS["mlflow"], patience=0) is False
    assert run.summary().status == "killed", "the status in the folder waits for no server"
    assert tracking.pending(run)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert send(run) is True
    assert points(run, "train/loss") == expected(5)
    assert tracking.link(run) == "dlrun ui ab12cd"


def test_what_is_no_result_has_a_tab_of_its_own_and_old_names_go_on(make_run: MakeRun) -> None:
    new, old = make_run("new123"), make_run("old123")
    for run in (new, old):
        journal = Journal(run.journal)
        journal.metrics(1, 1, {"train/loss": 1.0, "throughput/samples_per_second": 9.0, "cost/flop": 5.0})
        journal.close()
    stored = TRACKERS["mlflow"].connect(old).open_run(of_run(old), Metadata(tags={"dlrun.id": old.id}), start=0)
    assert isinstance(stored, MlflowRun)
    # as an earlier version has left it
    first = Point("cost/flop", 5.0, 0, 1)
    mark = [("dlrun.progress", f"{old.journal.stat().st_size}"), ("dlrun.folder", str(old.path))]
    stored.backend.log(stored.run_id, [first], [], mark)
    for run in (new, old):
        journal = Journal(run.journal)
        journal.metrics(2, 2, {"train/loss": 0.5, "cost/flop": 7.0})
        journal.close()
        summarise(run, status="finished", metrics={"train/accuracy": 0.9, "val/loss": 0.4}, best_step=2)
        assert send(run) is True
    assert points(new, "system/flop") == [(1, 5.0), (2, 7.0)]
    assert points(new, "system/samples_per_second") == [(1, 9.0)]
    assert points(old, "cost/flop") == [(1, 5.0), (2, 7.0)] and not points(old, "system/flop")
    assert points(new, "best/train/accuracy") == points(old, "best/train/accuracy") == [(2, 0.9)]
    assert not points(new, "train/accuracy"), "a single point is no curve"
    assert points(new, "val/loss") == points(new, "best/val/loss") == [(2, 0.4)]


def test_numbers_that_are_none_are_flagged(make_run: MakeRun) -> None:
    run = make_run()
    journal = Journal(run.journal)
    journal.metrics(1, 0.1, {"train/loss": 1.0})
    journal.metrics(2, 0.2, {"train/loss": math.nan, "grad_norm": math.inf})
    journal.metrics(3, 0.3, {"train/loss": math.nan})
    journal.event("text", name="samples/a", text="To be")
    journal.event("end", status="failed")
    journal.close()
    summarise(run, status="failed")
    assert send(run) is True
    page = shown(run)
    assert page.info.status == "FAILED"
    assert page.data.tags["dlrun.nonfinite"] == "train/loss: nan at step 2\ngrad_norm: inf at step 2"
    assert math.isnan(dict(points(run, "train/loss"))[2])
    assert [file.path for file in client(run).list_artifacts(page.info.run_id, "texts/samples")] == [
        "texts/samples/a.txt"
    ]


def test_samples_of_text_are_files_in_the_order_of_their_steps(make_run: MakeRun) -> None:
    run = make_run()
    log(run, range(3))
    journal = Journal(run.journal)
    texts = {500: "To be", 10_000: "Töten 🎉\n```\n# no heading\n"}
    for step, text in [*texts.items(), (500, "To be")]:  # a resumed run writes some again
        journal.event("text", name="samples", step=step, text=text)
    journal.close()
    log(run, range(3, 6), end="finished")
    assert send(run) is True
    page, mlflow = shown(run), client(run)
    files = [file.path for file in mlflow.list_artifacts(page.info.run_id, "samples")]
    assert files == ["samples/step-000500.txt", "samples/step-010000.txt"]
    fetched = [Path(mlflow.download_artifacts(page.info.run_id, file)).read_text(encoding="utf-8") for file in files]
    assert fetched == list(texts.values())
    assert "Written at step 500:\n\n    To be\n" in page.data.tags["mlflow.note.content"]


def test_an_uploader_killed_among_samples_sends_each_once(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    journal = Journal(run.journal)
    for step in range(1, 8):
        journal.metrics(step, step / 10, {"train/loss": 1 / step})
        journal.event("text", name="samples", step=step, text=f"text {step}")
    journal.close()
    summarise(run, status="finished")
    sent: list[str] = []
    send_text = MlflowRun.send_text

    def dying(self: MlflowRun, text: Text) -> None:
        send_text(self, text)
        sent.append(text.text)
        if len(sent) in (2, 5):
            raise RuntimeError("killed")

    monkeypatch.setattr(MlflowRun, "send_text", dying)
    while send(run) is not True:
        pass
    page, mlflow = shown(run), client(run)
    assert points(run, "train/loss") == [(step, 1 / step) for step in range(1, 8)]
    assert len(mlflow.list_artifacts(page.info.run_id, "samples")) == 7


def test_long_names_and_values_do_not_stop_the_rest(make_run: MakeRun) -> None:
    long = {f"p{i}": i for i in range(150)} | {"x" * 300: 1, "x" * 299 + "y": 2, "value": "v" * 9000, "bad?[key]": "ü"}
    run = make_run(config=json.dumps({"model": long, "tracking": {"tags": {"t" * 300: "w" * 9000}}}))
    journal = Journal(run.journal)
    journal.metrics(
        1, 0.0, {"val/top-5 [%]": 1.0, "grad_norm/" + "layer." * 60: 2.0} | {f"m/{i}": i for i in range(1500)}
    )
    journal.close()
    summarise(run, status="finished")
    assert send(run) is True
    page = shown(run)
    assert len(page.data.params) == 154 + 1
    assert page.data.params["model.p149"] == "149"
    assert page.data.params["model.bad__key_"] == "ü"
    assert page.data.metrics["val/top-5 ___"] == 1.0
    assert sum(name.startswith("m/") for name in page.data.metrics) == 1500


def test_a_person_s_note_and_name_are_kept(make_run: MakeRun) -> None:
    run = make_run()
    log(run, range(3), end="finished")
    send(run)
    run_id = shown(run).info.run_id
    client(run).set_tag(run_id, "mlflow.note.content", "It works because of the warm-up.")
    client(run).update_run(run_id, name="the good one")
    summarise(run, test_reads=2)
    assert tracking.pending(run)
    send(run)
    assert shown(run).data.tags["mlflow.note.content"] == "It works because of the warm-up."
    assert shown(run).info.run_name == "the good one"
    assert shown(run).data.tags["dlrun.test_reads"] == "2"


def test_many_processes_make_one_store(make_run: MakeRun, outputs: Path) -> None:
    run = make_run()
    log(run, range(20), end="finished")
    uri, artifacts = store_address(run).reveal(), outputs / "mlartifacts"
    code = """
import sys
from pathlib import Path
from dlrun.tracking.mlflow.names.address import Address
from dlrun.tracking.mlflow.store import prepare
prepare(Address(sys.argv[1]), Path(sys.argv[2]))
"""
    command = [sys.executable, "-c", code, uri, str(artifacts)]
    makers = [subprocess.Popen(command, cwd=ROOT) for _ in range(6)]
    assert [maker.wait() for maker in makers] == [0] * 6
    with closing(sqlite3.connect(outputs / "mlflow.db")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("SELECT artifact_location FROM experiments").fetchall() == [
            (f"{artifacts.as_uri()}/0",)
        ]
    assert send(run) is True
    assert points(run, "train/loss") == expected(20)


def test_a_store_that_cannot_be_migrated_is_copied_first(
    make_run: MakeRun, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    log(run, range(3), end="finished")
    send(run)
    now = set_revision(outputs, "1bd49d398cd23")  # of an earlier MLflow, on the tables of this one
    monkeypatch.setattr("dlrun.tracking.mlflow.store._is_known", lambda revision: True)
    with pytest.raises(RuntimeError, match="cannot be migrated"):
        prepare(store_address(run), outputs / "mlartifacts")
    (copy,) = outputs.glob("mlflow.db.before-mlflow-*")
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchone() == ("1bd49d398cd23",)
        assert database.execute("SELECT count(*) FROM metrics").fetchone() == (3 * 3 + 5,)
    set_revision(outputs, now)
    assert send(run) is True


def set_revision(outputs: Path, revision: str) -> str:
    with closing(sqlite3.connect(outputs / "mlflow.db")) as database, database:
        (before,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    return str(before)


@pytest.mark.parametrize("noted", [True, False])
def test_a_store_of_a_later_mlflow_is_told_and_left_alone(make_run: MakeRun, outputs: Path, noted: bool) -> None:
    run = make_run()
    log(run, range(3), end="finished")
    send(run)
    now = set_revision(outputs, "ffffffffffff")
    if not noted:
        (outputs / ".mlflow.db.lock").write_text("9.9.9")
    before = {file.name for file in outputs.iterdir()}
    with pytest.raises(LaterStore, match="later MLflow"):
        prepare(store_address(run), outputs / "mlartifacts")
    assert {file.name for file in outputs.iterdir()} == before
    assert set_revision(outputs, now) == "ffffffffffff"
    assert send(run) is True


@pytest.mark.parametrize("uri", ["file:./mlruns", "./mlruns", "file:///tmp/x", "htp://host:5000"])
def test_a_store_that_mlflow_refuses_is_refused_first(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI is") as refused:
        check_address()
    says(str(refused.value), "http://host:5000")


@pytest.mark.parametrize("uri", ["sqlite:///x.db", "http://h:5000", "postgresql+psycopg2://u:p@h/db", "databricks"])
def test_other_stores_are_taken(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    check_address()
    assert store_address().reveal() == uri
    assert ":p@" not in str(store_address())


def test_a_run_of_another_folder_keeps_its_store(tmp_path: Path, outputs: Path) -> None:
    run = RunDir(tmp_path / "elsewhere" / "runs" / "d" / "t-n-ab")
    assert store_address(run).reveal() == f"sqlite:///{tmp_path}/elsewhere/mlflow.db"
    assert store_address().reveal() == f"sqlite:///{outputs}/mlflow.db"


def test_the_journal_is_read_in_batches_and_past_a_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    line = '{"step": %d, "epoch": 0, "time": 1.5, "metrics": {"a": 1, "b": 2}}\n'
    path.write_text("".join(line % step for step in range(1000)) + '{"step": 1000, "met\n' + line % 1000 + '{"st')
    batches = list(JournalReader(path).batches())
    assert sum(len(batch.points) for batch in batches) == 3 * 1001
    assert all(BATCH - 3 < len(batch.points) <= BATCH for batch in batches[:-1])
    assert batches[-1].mark.end == path.stat().st_size - len('{"st')
    reader = JournalReader(path)
    reader.skip(batches[0].mark)
    assert list(reader.batches()) == batches[1:]
    assert not list(reader.batches())


def test_of_two_points_of_a_step_the_journal_s_later_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    line = '{"step": %d, "time": %s, "metrics": {"a": %s, "b": "nan"}}\n'
    path.write_text(line % (1, "1.5", 1) + line % (2, "1.5", 2) + line % (2, "1.5", 3) + line % (2, "1.5", 4))
    reader = JournalReader(path)
    (batch,) = reader.batches()
    # later by its time too, though the clock stood
    assert [point for point in batch.points if point.name == "a"] == [
        Point("a", 1.0, 1500, 1),
        Point("a", 4.0, 1502, 2, replaces=True),
    ]
    with path.open("a") as file:  # resumed, with a clock that was set back
        file.write(line % (1, "0.5", 1) + line % (2, "0.5", 5) + line.replace('"nan"', "7") % (3, "0.5", 6))
    again = JournalReader(path)
    again.skip(batch.mark)
    expected = [Point("a", 5.0, 1503, 2, replaces=True), Point("a", 6.0, 500, 3), Point("b", 7.0, 500, 3)]
    assert [batch.points for batch in reader.batches()] == [batch.points for batch in again.batches()] == [expected]
    assert reader.nonfinite == again.nonfinite == {"b": "nan at step 1"}


@pytest.mark.parametrize("direct", [True, False])
def test_a_resumed_run_s_later_values_are_shown(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    if not direct:  # as over a server
        monkeypatch.setattr(connection, "known_file", lambda address: None)
    run = make_run()
    log(run, range(20))
    assert send(run)
    journal = Journal(run.journal)  # resumed from step 15, at another rate
    lines = [(step, 100.0 if step < 17 else 0.5 / step) for step in range(15, 20)] + [(19, 0.25)]
    for step, value in lines:
        journal.metrics(step, step / 10, {"train/loss": value, "val/loss": 2 / (step + 1)})
    journal.event("end", status="finished")
    journal.close()
    summarise(run, status="finished", metrics={"val/loss": 0.1, "test/error": 0.25}, best_step=19)
    assert send(run)
    truth = {step: 1 / (step + 1) for step in range(20)} | dict(lines)
    assert dict(points(run, "train/loss")) == truth, "a chart's last point of a step"
    assert len(points(run, "train/loss")) == (20 if direct else 25)
    assert len(points(run, "val/loss")) == 20, "equal values are one point"
    assert shown(run).data.metrics["train/loss"] == 0.25
    # tested once more
    journal = Journal(run.journal)
    journal.event("test_read", reads=2)
    journal.close()
    summarise(run, metrics={"val/loss": 0.1, "test/error": 0.2})
    assert send(run)
    assert dict(points(run, "train/loss")) == truth
    assert points(run, "test/error")[-1] == (19, 0.2) and len(points(run, "test/error")) == (1 if direct else 2)
    assert shown(run).data.metrics["test/error"] == 0.2


def test_a_journal_that_was_set_back_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    lines = [f'{{"step": {step}, "time": {step}.5, "metrics": {{"a": 1}}}}\n' for step in range(100, 200)]
    path.write_text("".join(lines))
    (batch,) = JournalReader(path).batches()
    for changed in (lines[:50], lines[1:], [*lines[:50], lines[50].replace("1}", "2}"), *lines[51:]], []):
        path.write_text("".join(changed))
        reader = JournalReader(path)
        reader.skip(batch.mark)
        assert (reader.offset, reader.compare) == (0, True)
        sent = [batch.points for batch in reader.batches()]
        assert [point.step for points in sent for point in points] == [json.loads(line)["step"] for line in changed]
        # the next reader compares too: the tracker may have points behind the mark
        again = JournalReader(path)
        again.skip(reader.mark)
        assert again.compare and not list(again.batches())
    path.write_text("".join(lines))
    reader = JournalReader(path)
    reader.skip(Mark(batch.mark.end))  # of a version without digests
    assert (reader.mark.end, reader.compare) == (batch.mark.end, False)


def test_a_journal_that_was_set_back_is_sent_whole_and_once(make_run: MakeRun) -> None:
    run = make_run()
    log(run, range(1000), end="finished")
    assert send(run)
    whole = run.journal.read_bytes().splitlines(keepends=True)
    run.journal.write_bytes(b"".join(whole[:300]))
    assert tracking.pending(run), "what was sent is not what is there"
    assert send(run)
    assert not tracking.pending(run)
    # a resumed run logs the lost steps again at another time, one with another value, and goes beyond
    log(run, range(290, 1500), end="finished")
    last = run.journal.read_text()
    run.journal.write_text(last.replace('"step": 700, "epoch": 70.0', '"step": 700, "epoch": 70.5'))
    journal = Journal(run.journal)
    journal.metrics(1500, 150.0, {"train/loss": math.nan, "new": math.inf})
    journal.close()
    for _ in range(2):
        assert send(run)
        assert sorted(points(run, "train/loss"))[:-1] == expected(1500)
        assert [value for step, value in points(run, "epoch") if step == 700] == [70.5]
        assert len(points(run, "new")) == 1 and points(run, "test/error") == [(5, 0.25)]
        assert not tracking.pending(run)
        with run.edit_summary() as summary:
            summary.uploaded = {"mlflow": False}


def test_references_in_the_config_are_resolved_where_they_can_be(make_run: MakeRun) -> None:
    run = make_run(config="a: 1\nb: ${a}")
    assert run_config.plain(run) == {"a": 1, "b": 1}
    run.config.write_text("a: 1\nb: ${nosuch:1}")
    assert run_config.plain(run) == {"a": 1, "b": "${nosuch:1}"}


def test_no_environment_variable_of_a_saved_config_is_shown(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "hunter2")
    run = make_run(config="a: 1\nb: ${a}\nc: ${oc.env:PASSWORD}\nd: x ${oc.env:NONE,${oc.env:PASSWORD}}")
    asked = {"c": "${oc.env:PASSWORD}", "d": "x ${oc.env:NONE,${oc.env:PASSWORD}}"}
    assert run_config.plain(run) == {"a": 1, "b": 1, **asked}
    # whoever rebuilds the run needs its value
    assert run_config.load(run).c == "hunter2"


def test_starting_imports_neither_mlflow_nor_torch(make_run: MakeRun) -> None:
    code = "import sys, dlrun.tracking; sys.exit(any(m in sys.modules for m in ('mlflow', 'torch', 'omegaconf')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_waiting_gives_up(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, forked: None) -> None:
    run = make_run()
    log(run, range(2), end="finished")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    beside = tracking.start(run)
    assert beside.wait(0.2) is False
    os.kill(beside.processes["mlflow"].pid, signal.SIGKILL)
    beside = tracking.start(run)
    monkeypatch.setattr(sys.modules["dlrun.tracking.start"], "wait_until", _interrupted)
    assert beside.wait(60) is False
    os.kill(beside.processes["mlflow"].pid, signal.SIGKILL)


def test_no_training_fails_for_an_uploader_that_cannot_start(
    call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "python")

    monkeypatch.setattr(sys.modules["dlrun.tracking.start"], "subprocess", SimpleNamespace(Popen=refuse, DEVNULL=-3))
    done = call("train", "dataset=moons", "model=linear", "trainer.steps=2", "trainer.figures=false")
    assert done.code == 0, done.err
    (run,) = all_runs()
    says(done.err, "MLflow", "Permission denied", f"dlrun sync {run.id}")
    says(done.out, "could not be started")
    assert run.summary().status == "finished" and run.summary().uploaded == {"mlflow": False}


def _interrupted(*_: object) -> bool:
    raise KeyboardInterrupt


def test_system_metrics_need_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install psutil"):
        tracking.check(["mlflow"], system_metrics=True)


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="needs Linux")
def test_the_uploader_runs_on_idle_processors_only_and_outlives_the_terminal(make_run: MakeRun) -> None:
    program = (
        "import os, signal; from dlrun.tracking.uploader import give_way; give_way();"
        "print(os.sched_getscheduler(0) == os.SCHED_IDLE, signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
    uploader = tracking.start(make_run())
    try:
        # not in the trainer's process group, which gets the terminal's Ctrl-C
        assert os.getpgid(uploader.processes["mlflow"].pid) == uploader.processes["mlflow"].pid != os.getpgid(0)
    finally:
        uploader.processes["mlflow"].kill()
        uploader.processes["mlflow"].wait()


@pytest.mark.slow
def test_a_run_whose_uploader_died_is_deleted_too(make_run: MakeRun) -> None:
    run = make_run(status="finished", uploaded=False)
    assert uploader.send(run, TRACKERS["mlflow"], patience=0)
    run_id = run.summary().mlflow_run_id
    summarise(run, mlflow_run_id=None, uploaded=False)  # what a folder says before its uploader has ended
    tracking.delete(run)
    assert client(run).get_run(run_id).info.lifecycle_stage == "deleted"
