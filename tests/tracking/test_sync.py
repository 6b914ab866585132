"""`dlrun sync`: what an outage, a kill or a lost store left is sent."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dlrun.commands import sync, ui
from dlrun.errors import RunError, UserError
from dlrun.storage.jobs.job import Job
from dlrun.storage.manifest import Manifest
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking import delete, pending, uploader
from dlrun.tracking.content.state import only_uploader
from dlrun.tracking.mlflow.run import MlflowRun
from tests.facts import says
from tests.summaries import summarise

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DLRUN_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs"


def make(folder: Path, status: str = "finished", config: str = "name: toy") -> RunDir:
    run = RunDir(folder)
    (folder / ".hydra").mkdir(parents=True)
    run.config.write_text(config)
    summarise(run, status=status, metrics={"test/error": 0.1}, best_step=3)
    return run


def status_in_mlflow(run: RunDir) -> str:
    from mlflow import MlflowClient

    from dlrun.tracking.mlflow.uri import store_address

    return str(MlflowClient(store_address(run).reveal()).get_run(run.summary().mlflow_run_id).info.status)


def test_everything_is_sent_once(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    day = outputs / "runs" / "2026-11-22"
    finished, dead = make(day / "1-toy-aaaa"), make(day / "2-toy-bbbb", "running")
    untracked = make(day / "3-toy-cccc", config="{name: toy, tracking: {enabled: false}}")
    assert sync.main([]) == 0
    assert capsys.readouterr().out == "aaaa  finished  sent: dlrun ui aaaa\nbbbb  killed  sent: dlrun ui bbbb\n"
    assert (status_in_mlflow(finished), status_in_mlflow(dead)) == ("FINISHED", "KILLED")
    assert untracked.summary().mlflow_run_id is None
    assert sync.main([]) == 0
    assert capsys.readouterr().out == "Nothing is left to send of the 2 runs.\n"


def test_a_store_that_was_lost_is_filled_again(outputs: Path) -> None:
    run = make(outputs / "runs" / "d" / "1-toy-aaaa")
    assert sync.main(["aa"]) == 0
    first = run.summary().mlflow_run_id
    assert sync.main(["--again"]) == 0
    assert run.summary().mlflow_run_id == first


def test_a_sweep_is_sent_with_its_jobs(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = SweepDir(outputs / "sweeps" / "d" / "1-toy-ffff")
    runs = [make(sweep.path / str(number)) for number in range(2)]
    jobs = tuple(Job(n, (f"seed={n}",), {"name": "toy", "seed": n}, f"{n}", "g") for n in range(2))
    Manifest("toy", "d", {}, "dlrun train -m", 0.0, "test/error", False, "every", jobs=jobs).write(sweep)
    summarise(sweep, status="running")
    assert sync.main(["ff"]) == 0
    assert capsys.readouterr().out == "ffff  killed  sent: dlrun ui ffff\n"
    assert not any(pending(run) for run in runs)
    from mlflow import MlflowClient

    from dlrun.tracking.mlflow.uri import store_address

    tags = MlflowClient(store_address(runs[1]).reveal()).get_run(runs[1].summary().mlflow_run_id).data.tags
    assert (tags["dlrun.id"], tags["dlrun.kind"]) == ("ffff/1", "job")
    assert tags["mlflow.parentRunId"] == sweep.summary().mlflow_run_id
    assert sync.main([]) == 0
    assert capsys.readouterr().out == "Nothing is left to send of the one sweep.\n"


def test_a_store_that_is_away_is_said_and_left(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [make(outputs / "runs" / "d" / f"{n}-toy-{n}aaa") for n in range(5)]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert sync.main([]) == 1
    told = capsys.readouterr()
    assert told.out.count("not sent: MLflow did not answer") == 3
    says(told.err, "the other 2 were not tried")
    assert all(pending(run) for run in runs)


def test_a_file_that_may_not_be_written_is_said_as_the_cause(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # the tests may be root's, who may write everything
    runs = [make(outputs / "runs" / "d" / f"{n}-toy-{n}aaa") for n in range(3)]
    forbidden, send = [runs[0].journal], uploader.send

    def forbid(folder: RunDir, *arguments: Any, report: Any, **named: Any) -> bool | None:
        if any(folder.path in file.parents or file.parent == outputs for file in forbidden):
            report(folder, PermissionError(13, "Permission denied", str(forbidden[0])))
            return False
        return send(folder, *arguments, report=report, **named)

    monkeypatch.setattr(uploader, "send", forbid)
    assert sync.main([]) == 1
    told = capsys.readouterr()
    says(told.out, f"{runs[0].journal} may not be used")
    assert told.out.count("  sent: ") == 2 and not told.err, "one run's file stops no other"
    forbidden[0] = outputs / ".mlflow.db.lock"
    assert sync.main(["--again"]) == 1
    says(capsys.readouterr().err, f"MLflow: {forbidden[0]} may not be used", "the other 2 were not tried")


def test_what_another_process_sends_is_waited_for_or_told(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(outputs / "runs" / "d" / "1-toy-aaaa")
    monkeypatch.setattr(sync, "OTHER", 0.3)
    with only_uploader(run.path, "mlflow"):
        assert sync.main([]) == 1
    says(capsys.readouterr().out, "not all is sent yet", "--patience")
    monkeypatch.setattr(sync, "OTHER", 60.0)
    holder = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, 2); print(flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", holder, str(run.path / ".uploader.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdin and other.stdout and other.stdout.readline()
    threading.Timer(0.3, other.communicate, [b"\n"]).start()
    assert sync.main([]) == 0
    says(capsys.readouterr().out, "sent: dlrun ui aaaa")


def test_a_damaged_store_is_told_as_that_once(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make(outputs / "runs" / "d" / f"{n}-toy-{n}aaa") for n in range(3)]
    (outputs / "mlflow.db").write_bytes(b"garbage garbage!" * 100)
    before = {file.name for file in outputs.iterdir()} | {".mlflow.db.lock"}
    assert sync.main(["--patience", "60"]) == 1
    told = capsys.readouterr()
    assert told.out.count("is damaged") == 1
    says(told.out, "file is not a database", "dlrun sync --again")
    says(told.err, "the other 2 were not tried")
    with pytest.raises(RunError, match="is damaged"):
        ui.main(["--no-browser"])
    with pytest.raises(UserError, match="is damaged"):
        with runs[0].edit_summary() as summary:
            summary.uploaded = {"mlflow": False}
        delete(runs[0])
    assert {file.name for file in outputs.iterdir()} - {"sync.log"} == before
    (outputs / "mlflow.db").rename(outputs / "mlflow.db.damaged")
    assert sync.main(["--again"]) == 0


def test_sending_again_that_is_interrupted_is_still_lacking(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(outputs / "runs" / "d" / "1-toy-aaaa")
    assert sync.main([]) == 0

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(MlflowRun, "send", die)
        sync.main(["--again"])
    assert pending(run)
    assert status_in_mlflow(run) == "FINISHED", "an ended run that is sent again stays ended"


def test_mistakes_are_refused(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="No run or sweep `zzz`"):
        sync.main(["zzz"])
    make(outputs / "runs" / "d" / "1-toy-aaaa")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./mlruns")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        sync.main([])


def test_a_run_of_before_a_second_tracker_is_read_as_mlflow_s(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make(outputs / "runs" / "d" / "1-toy-aaaa")
    assert sync.main([]) == 0
    summary = json.loads((run.path / "summary.json").read_text())
    old = summary | {"uploaded": True, "uploaded_stamp": summary["uploaded_stamp"]["mlflow"]}
    (run.path / "summary.json").write_text(json.dumps(old))
    assert not pending(run)
    (run.path / "summary.json").write_text(json.dumps(old | {"uploaded": False}))
    assert [tracker.name for tracker in pending(run)] == ["mlflow"]
    assert sync.main([]) == 0
    assert json.loads((run.path / "summary.json").read_text()) == summary
    capsys.readouterr()


def test_a_run_is_sent_to_the_trackers_that_it_names(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    run = make(outputs / "runs" / "d" / "1-toy-aaaa", config="{name: toy, tracking: {backends: [tensorboard]}}")
    assert sync.main([]) == 0
    assert capsys.readouterr().out == "aaaa  finished  sent: tensorboard --logdir outputs/tensorboard\n"
    assert run.summary().uploaded == {"tensorboard": True}
    assert not (outputs / "mlflow.db").exists()
