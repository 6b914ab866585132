"""Sweeps as MLflow shows them: a parent, its jobs under it, and not a point lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dlrun import tracking
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.manifest import read
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking import TRACKERS, uploader
from dlrun.tracking.content.journal_reader import MetricBatch
from dlrun.tracking.content.metadata import Metadata
from dlrun.tracking.content.state import only_uploader
from dlrun.tracking.mlflow.run import MlflowRun
from dlrun.tracking.mlflow.uri import store_address
from tests.facts import says
from tests.processes import UPLOADING
from tests.summaries import summarise
from tests.tracking.folders import MakeSweep, job, train, value

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ROOT = Path(tracking.__file__).parents[2]
WAIT = 120.0
"""Far more than is needed: how long a busy machine may take is not what is tested."""


def client(sweep: SweepDir) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(store_address(sweep).reveal())


def shown(sweep: SweepDir, wanted: str) -> list[Any]:
    mlflow = client(sweep)
    return list(mlflow.search_runs([e.experiment_id for e in mlflow.search_experiments()], wanted, max_results=1000))


def parent(sweep: SweepDir) -> Any:
    (found,) = shown(sweep, f"tags.`dlrun.id` = '{sweep.id}'")
    return found


def children(sweep: SweepDir) -> dict[str, Any]:
    """Return the children by their name in MLflow, which must tell them apart."""
    found = shown(sweep, f"tags.`mlflow.parentRunId` = '{parent(sweep).info.run_id}'")
    names = {child.info.run_name: child for child in found}
    assert len(names) == len(found)
    return names


def curve(sweep: SweepDir, run_id: str, name: str = "train/loss") -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client(sweep).get_metric_history(run_id, name)]


def expected(n: int, steps: int) -> list[tuple[int, float]]:
    return [(step, value(n, step)) for step in range(steps)]


def send(sweep: SweepDir) -> bool | None:
    return uploader.send(sweep, TRACKERS["mlflow"], patience=0)


@contextmanager
def followed(sweep: SweepDir) -> Iterator[None]:
    """Have the sweep sent while the block runs, by a thread: cheaper than a process; then wait until all is sent."""
    sent: list[bool | None] = []
    summarise(sweep, uploaded=False)
    thread = threading.Thread(target=lambda: sent.append(uploader.send(sweep, TRACKERS["mlflow"])), daemon=True)
    thread.start()
    yield
    thread.join(WAIT)
    assert sent == [True]


def test_a_sweep_is_a_parent_with_its_jobs(make_sweep: MakeSweep) -> None:
    sweep = make_sweep()
    for n in range(4):
        train(sweep, n, test_reads=int(n < 2))
    sweep.report.mkdir()
    pictured = "# digits\n\n![curves](figures/curves.png)\n\nThe error falls with the rate: **held** (0.1 < 0.3).\n"
    (sweep.report / "report.md").write_text(pictured)
    (sweep.report / "figures").mkdir()
    (sweep.report / "figures" / "curves.svg").write_text("<svg/>")
    summarise(sweep, status="finished", selected={"label": "optimizer.lr=1", "mean": 0.05}, test_reads=2)
    assert send(sweep) is True
    assert not tracking.pending(sweep)

    page = parent(sweep)
    assert (page.info.status, page.info.run_name) == ("FINISHED", "digits-feed")
    tags = page.data.tags
    assert (tags["dlrun.kind"], tags["dlrun.test_reads"], tags["dlrun.jobs"]) == ("sweep", "2", "4")
    assert tags["mlflow.source.name"] == "dlrun train -m optimizer.lr=1,0.1"
    assert page.data.params["optimizer.lr"] == "1.0, 0.1"
    assert page.data.params["seed"] == "0, 1"
    assert page.data.params["name"] == "digits"
    assert not page.data.metrics, "a metric that only the parent has is an empty chart"
    note = tags["mlflow.note.content"]
    assert "selected: **optimizer.lr=1**, val/error 0.05 in the mean" in note
    assert "**held** (0.1 < 0.3)" in note and "![" not in note
    assert "read 2 times" in note and "dlrun train -m" in note
    files = {file.path for file in client(sweep).list_artifacts(page.info.run_id, "report")}
    assert files == {"report/report.md", "report/figures"}

    found = children(sweep)
    assert set(found) == {f"optimizer.lr={rate} seed={seed}" for rate in ("1", "0.1") for seed in (0, 1)}
    child = found["optimizer.lr=0.1 seed=1"]
    assert (child.info.status, child.data.tags["dlrun.kind"], child.data.tags["dlrun.id"]) == (
        "FINISHED",
        "job",
        "feed/3",
    )
    # stores of earlier versions have these names: `dlrun ui SWEEP` and deletion look for them
    assert (child.data.tags["dlrun.sweep"], child.data.tags["dlrun.group"]) == ("feed", "optimizer.lr=0.1")
    assert child.data.params["optimizer.lr"] == "0.1"
    assert curve(sweep, child.info.run_id) == expected(3, 3)

    # once more changes nothing
    assert send(sweep) is True
    assert set(children(sweep)) == set(found)
    assert curve(sweep, child.info.run_id) == expected(3, 3)


def write_jobs(sweep: SweepDir, numbers: range, steps: int) -> None:
    for n in numbers:
        folder = sweep.job(n)
        (folder.path / ".hydra").mkdir(parents=True)
        with folder.hold():
            train(sweep, n, steps=steps)


def test_no_point_of_many_jobs_of_many_processes_is_lost(
    make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, processes, steps = make_sweep(8, 3), 4, 60
    context = multiprocessing.get_context("spawn")
    monkeypatch.setattr(sys.modules["dlrun.tracking.start"], "subprocess", UPLOADING)
    with sweep.hold():
        beside = tracking.start(sweep)
        trainers = [
            context.Process(target=write_jobs, args=(sweep, range(n, 24, processes), steps)) for n in range(processes)
        ]
        for trainer in trainers:
            trainer.start()
        for trainer in trainers:
            trainer.join()
        summarise(sweep, status="finished")
        assert beside.wait(WAIT)
    found = {child.data.tags["dlrun.id"]: child for child in children(sweep).values()}
    assert set(found) == {f"feed/{n}" for n in range(24)}
    assert {child.info.status for child in found.values()} == {"FINISHED"}
    for n in range(24):
        assert curve(sweep, found[f"feed/{n}"].info.run_id) == expected(n, steps)
    assert (sweep.path / "uploader.log").read_text() == ""


CONDUCTOR = """
import sys, time
from pathlib import Path
from dlrun.storage.sweepdir import SweepDir
sweep = SweepDir(Path(sys.argv[1]))
with sweep.hold(), sweep.job(0).hold():
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_killed_launcher_leaves_no_run_running(make_sweep: MakeSweep) -> None:
    sweep = make_sweep()
    train(sweep, 0, status="running")
    train(sweep, 1)
    train(sweep, 2, status="failed", error="ValueError: no")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CONDUCTOR, str(sweep.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as conductor:
        assert conductor.stdout and conductor.stdout.readline() == "held\n"
        with followed(sweep):
            assert wait_until(lambda: sweep.job(1).summary().uploaded["mlflow"], WAIT)
            assert sweep.status() == "running"
            conductor.send_signal(signal.SIGKILL)
            conductor.wait()
    assert parent(sweep).info.status == "KILLED"
    statuses = {child.data.tags["dlrun.id"]: child.info.status for child in children(sweep).values()}
    assert statuses == {"feed/0": "KILLED", "feed/1": "FINISHED", "feed/2": "FAILED"}
    assert sweep.summary().status == "killed"

    # resumed: the same pages go on
    train(sweep, 0, steps=5)
    train(sweep, 3)
    summarise(sweep, status="finished")
    assert tracking.pending(sweep)
    assert send(sweep) is True
    assert parent(sweep).info.status == "FAILED", "one job failed"
    assert parent(sweep).data.tags["dlrun.jobs.status"] == "3 finished, 1 failed"
    found = children(sweep)
    assert len(found) == 4
    assert curve(sweep, found["optimizer.lr=1 seed=0"].info.run_id) == expected(0, 5)


def test_the_selected_jobs_are_marked_and_no_others(make_sweep: MakeSweep) -> None:
    sweep = make_sweep()
    for n in range(4):
        train(sweep, n)

    def marks() -> dict[str, str]:
        tags = [child.data.tags for child in children(sweep).values()]
        return {each["dlrun.id"]: each["dlrun.selected"] for each in tags if "dlrun.selected" in each}

    summarise(sweep, status="finished", selected={"label": "optimizer.lr=1", "mean": 0.05, "jobs": [0, 1]})
    assert send(sweep) is True
    assert marks() == {"feed/0": "true", "feed/1": "true"}
    summarise(sweep, selected={"label": "optimizer.lr=0.1", "mean": 0.04, "jobs": [2, 3]})
    assert tracking.pending(sweep) and send(sweep) is True
    assert marks() == {"feed/2": "true", "feed/3": "true"}

    # over two data sets there are two selections
    strata = [{"label": f"dataset={n}", "selected": {"label": "a", "jobs": [n]}} for n in range(2)]
    summarise(sweep, selected=None, strata=strata)
    assert send(sweep) is True
    assert marks() == {"feed/0": "dataset=0", "feed/1": "dataset=1"}


def test_a_search_adds_jobs_while_it_runs(make_sweep: MakeSweep) -> None:
    sweep = make_sweep(1, 1)
    train(sweep, 0)
    with sweep.hold(), followed(sweep):
        assert wait_until(lambda: sweep.job(0).summary().uploaded["mlflow"], WAIT)
        read(sweep).extended([job(1, rate=0.5, seed=7)]).write(sweep)
        train(sweep, 1, status="pruned")
        summarise(sweep, status="finished")
    found = children(sweep)
    assert {name: child.info.status for name, child in found.items()} == {
        "optimizer.lr=1 seed=0": "FINISHED",
        "optimizer.lr=0.5 seed=7": "KILLED",
    }
    assert found["optimizer.lr=0.5 seed=7"].data.tags["dlrun.status"] == "pruned"
    assert parent(sweep).data.params["optimizer.lr"] == "1.0, 0.5"


def test_a_reused_run_is_shown_in_both_sweeps(make_sweep: MakeSweep) -> None:
    first, second = make_sweep(1, 2, name="aaaa"), make_sweep(1, 2, name="bbbb")
    for n in range(2):
        train(first, n, test_reads=1)
    summarise(first, status="finished")
    assert send(first) is True
    second.reuse(0, first.job(0))
    train(second, 1)
    summarise(second, status="finished")
    assert send(second) is True
    assert not tracking.pending(second)
    found = children(second)
    assert set(found) == set(children(first)) == {"optimizer.lr=1 seed=0", "optimizer.lr=1 seed=1"}
    again = found["optimizer.lr=1 seed=0"]
    assert (again.data.tags["dlrun.reused_from"], again.data.tags["dlrun.id"]) == ("aaaa/0", "bbbb/0")
    assert curve(second, again.info.run_id) == expected(0, 3)
    assert parent(second).data.tags["dlrun.test_reads"] == "0", "what was reused was read for another sweep"
    assert first.job(0).summary().mlflow_run_id != again.info.run_id

    tracking.delete(second)
    assert not shown(second, "tags.`dlrun.sweep` = 'bbbb'") + shown(second, "tags.`dlrun.id` = 'bbbb'")
    assert len(children(first)) == 2
    tracking.delete(second)


def test_what_comes_after_a_job_was_sent_is_sent_too(make_sweep: MakeSweep) -> None:
    """The selected jobs are tested when all have been trained."""
    sweep = make_sweep(1, 2)
    for n in range(2):
        train(sweep, n)
    with sweep.hold(), followed(sweep):
        assert wait_until(lambda: all(sweep.job(n).summary().uploaded["mlflow"] for n in range(2)), WAIT)
        for n in range(2):
            summarise(sweep.job(n), metrics={"val/error": n / 10, "test/error": 0.5}, test_reads=1)
        summarise(sweep, status="finished")
    for child in children(sweep).values():
        assert curve(sweep, child.info.run_id, "test/error") == [(1, 0.5)]
        assert child.data.tags["dlrun.test_reads"] == "1"
    assert parent(sweep).data.tags["dlrun.test_reads"] == "2"


def test_a_broken_job_hinders_no_other(make_sweep: MakeSweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = make_sweep()
    for n in range(4):
        train(sweep, n)
    whole = sweep.job(1).config.read_text()
    sweep.job(1).config.write_text("a: [")
    summarise(sweep, status="finished")
    assert send(sweep) is False
    says(capsys.readouterr().err, "feed/1/.hydra/config.yaml is damaged")
    assert len(children(sweep)) == 3
    assert parent(sweep).info.status == "FINISHED"
    assert tracking.pending(sweep)
    sweep.job(1).config.write_text(whole)
    assert send(sweep) is True
    assert len(children(sweep)) == 4


def test_an_uploader_that_ends_in_the_middle_is_made_good(
    make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep(4, 2)
    for n in range(8):
        train(sweep, n, steps=40)
    summarise(sweep, status="finished")
    whole, calls = MlflowRun.send, []

    def die(self: MlflowRun, metadata: Metadata | None = None, batch: MetricBatch | None = None) -> None:
        calls.append(batch)
        if len(calls) == 6 and batch:
            self._log(batch.points, {}, {})  # the points are in the store, the progress is not
            raise KeyboardInterrupt
        whole(self, metadata, batch)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(MlflowRun, "send", die)
        send(sweep)
    assert tracking.pending(sweep)
    assert send(sweep) is True
    found = {child.data.tags["dlrun.id"]: child for child in children(sweep).values()}
    assert len(found) == 8
    for n in range(8):
        assert curve(sweep, found[f"feed/{n}"].info.run_id) == expected(n, 40)


def test_a_run_that_has_ended_is_sent_whole_or_not_at_all(
    make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep(1, 2)
    for n in range(2):
        train(sweep, n)
    summarise(sweep, status="finished")

    def die(self: MlflowRun, *_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(MlflowRun, "finish", die)
        send(sweep)
    assert not children(sweep)
    assert not sweep.job(0).summary().uploaded["mlflow"]
    assert send(sweep) is True
    assert len(children(sweep)) == 2


def test_a_store_that_is_away_costs_little(make_sweep: MakeSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = make_sweep()
    train(sweep, 0, status="running")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert send(sweep) is False
    assert sweep.summary().status == "killed", "the status in the folder waits for no server"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert send(sweep) is True
    assert [child.info.status for child in children(sweep).values()] == ["KILLED"]


def test_a_job_with_an_uploader_of_its_own_is_left_to_it(make_sweep: MakeSweep) -> None:
    sweep = make_sweep(1, 2)
    for n in range(2):
        train(sweep, n)
    summarise(sweep, status="finished")
    with only_uploader(sweep.job(0).path, "mlflow"):
        assert send(sweep) is True
        assert set(children(sweep)) == {"optimizer.lr=1 seed=1"}
        assert tracking.pending(sweep)
    assert uploader.send(sweep.job(0), TRACKERS["mlflow"], patience=0) is True
    assert set(children(sweep)) == {"optimizer.lr=1 seed=0", "optimizer.lr=1 seed=1"}


def test_the_table_stands_in_for_a_report(make_sweep: MakeSweep) -> None:
    sweep = make_sweep(30, 1)
    for n in range(30):
        train(sweep, n)
    summarise(sweep, status="finished")
    from dlrun.storage.results import results
    from dlrun.tracking.content.sweep_description import describe

    written = describe(sweep, read(sweep), results(sweep))
    assert "| optimizer.lr=1 | 1 of 1 | 0 |" in written
    assert "… and 10 more" in written
    (sweep.path / "report").mkdir()
    (sweep.path / "report" / "report.md").write_text("word " * 10_000)
    long = describe(sweep, read(sweep), results(sweep))
    assert len(long) <= 8000
    assert long.endswith(f"Its folder: `{sweep.path}`")
