"""A copy of a run's folder has the same id: deleting it leaves the original's run at each tracker."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from dlrun import tracking
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking import TRACKERS, uploader
from dlrun.tracking.content.owner import other_owner
from dlrun.tracking.mlflow.uri import store_address
from tests.facts import says
from tests.summaries import summarise
from tests.tracking.folders import MakeRun, MakeSweep, log, train

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def stage(folder: RunDir | SweepDir, run_id: str | None) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(store_address(folder).reveal()).get_run(run_id or "").info.lifecycle_stage


def test_the_copy_of_a_run_is_deleted_alone(make_run: MakeRun) -> None:
    run = make_run(status="finished", uploaded=False)
    assert uploader.send(run, TRACKERS["mlflow"], patience=0)
    run_id = run.summary().mlflow_run_id
    copy = RunDir(run.path.parents[1] / "2026-11-23" / run.path.name)
    shutil.copytree(run.path, copy.path)
    (kept,) = tracking.delete(copy)
    says(kept, str(copy.path), f"MLflow keeps its run, which belongs to {run.path}")
    assert stage(run, run_id) == "active"
    # a folder that was moved is the run itself
    shutil.rmtree(copy.path)
    run.path.rename(copy.path)
    assert tracking.delete(copy) == []
    assert stage(copy, run_id) == "deleted"


def test_the_copy_of_a_sweep_is_deleted_alone(make_sweep: MakeSweep) -> None:
    sweep = make_sweep(rates=1)
    jobs = [train(sweep, n) for n in (0, 1)]
    summarise(sweep, status="finished", uploaded=False)
    assert uploader.send(sweep, TRACKERS["mlflow"], patience=0)
    copy = SweepDir(sweep.path.parents[1] / "2026-11-24" / sweep.path.name)
    shutil.copytree(sweep.path, copy.path)
    assert len(tracking.delete(copy)) == 1
    ids = [sweep.summary().mlflow_run_id, *(job.summary().mlflow_run_id for job in jobs)]
    assert [stage(sweep, each) for each in ids] == ["active"] * 3
    shutil.rmtree(copy.path)
    assert tracking.delete(sweep) == []
    assert [stage(sweep, each) for each in ids] == ["deleted"] * 3


def test_a_server_s_run_of_another_machine_is_not_deleted(tmp_path: Path) -> None:
    original = tmp_path / "original"
    original.mkdir()
    tags = {"dlrun.folder": "/scratch/run", "dlrun.hostname": "cluster"}
    assert other_owner(tags, tmp_path, local=False) == Path("/scratch/run")
    assert other_owner(tags, tmp_path, local=True) is None
    assert other_owner({**tags, "dlrun.hostname": socket.gethostname()}, tmp_path, local=False) is None
    assert other_owner({**tags, "dlrun.folder": str(tmp_path)}, tmp_path, local=False) is None
    assert other_owner({"dlrun.folder": str(original)}, tmp_path, local=True) == original
    (tmp_path / "link").symlink_to(original)
    assert other_owner({"dlrun.folder": str(original)}, tmp_path / "link", local=True) is None


def test_two_folders_of_one_name_share_a_folder_of_tensorboard(make_run: MakeRun, outputs: Path) -> None:
    pytest.importorskip("tensorboard")
    tensorboard = TRACKERS["tensorboard"]
    run = make_run(uploaded=False)
    log(run, range(3), end="finished")
    assert uploader.send(run, tensorboard, patience=0)
    copy = RunDir(outputs / "runs/2026-11-23" / run.path.name)
    shutil.copytree(run.path, copy.path)
    assert tensorboard.delete(copy) == run.path
    shutil.rmtree(copy.path)
    assert tensorboard.delete(run) is None
    assert not (outputs / "tensorboard" / run.path.name).exists()
