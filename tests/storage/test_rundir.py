"""The run folder: found by its id, alive while it is held, buried when its process is gone."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dlrun.errors import UserError
from dlrun.storage import run_config
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.lookup import all_runs, find
from dlrun.storage.rundir import RunDir
from dlrun.sweeps import run_job
from tests.facts import says
from tests.summaries import summarise

HOLD = """
import sys, time
from pathlib import Path
from dlrun.storage.rundir import RunDir
run = RunDir(Path(sys.argv[1]))
with run.hold():
    with run.edit_summary() as summary:
        summary.status = "running"
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DLRUN_OUTPUTS", str(tmp_path))
    return tmp_path


def folder(outputs: Path, name: str) -> RunDir:
    path = outputs / "runs" / "2026-01-02" / name
    (path / ".hydra").mkdir(parents=True)
    return RunDir(path)


def test_a_run_is_found_by_its_folder_and_by_the_beginning_of_its_id(outputs: Path) -> None:
    run = folder(outputs, "101112-mnist-k3x9abcd")
    folder(outputs, "101113-mnist-zzzzabcd")
    assert find("k3") == find(str(run.path)) == run
    assert run.id == "k3x9abcd"


def test_runs_are_listed_oldest_first(outputs: Path) -> None:
    names = ["2026-01-02/235959-b-zz", "2026-01-03/000001-a-yy", "2026-01-03/000001-a-xx", "2026-01-03/000002-a-ww"]
    for i, name in enumerate(names):
        overrides = outputs / "runs" / name / ".hydra" / "overrides.yaml"
        overrides.parent.mkdir(parents=True)
        overrides.touch()
        os.utime(overrides, (i, i))
    assert [run.id for run in all_runs()] == ["zz", "yy", "xx", "ww"]


def test_an_id_that_fits_none_or_several_is_an_error_that_lists_them(outputs: Path) -> None:
    a, b = folder(outputs, "101112-a-k3x9abcd"), folder(outputs, "101113-b-k3zzabcd")
    with pytest.raises(UserError) as several:
        find("k3")
    says(str(several.value), str(a.path), str(b.path))
    with pytest.raises(UserError, match="No run `nothere`"):
        find("nothere")


def test_a_killed_process_is_seen_and_its_run_buried(outputs: Path) -> None:
    run = folder(outputs, "101112-a-k3x9abcd")
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"held\n"
    assert run.alive()
    assert run.status() == "running"
    with pytest.raises(UserError, match="in use"), run.hold():
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not run.alive()
    assert run.status() == "killed"
    assert json.loads((run.path / "summary.json").read_text())["status"] == "killed"


def test_a_forked_worker_does_not_hold_its_parents_folder(outputs: Path) -> None:
    run = folder(outputs, "101112-a-k3x9abcd")
    with run.hold():
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
        worker.start()
        time.sleep(0.2)
        assert run.alive()
    assert worker.is_alive() and not run.alive()
    worker.kill()
    worker.join()


def test_what_a_run_is_does_not_hang_on_the_name_of_its_folder(tmp_path: Path) -> None:
    jobs = [RunDir(tmp_path / name / "0") for name in ("a-1", "b-1", "c-1")]
    for job in jobs:
        (job.path / ".hydra").mkdir(parents=True)
    (tmp_path / "a-1" / "manifest.json").write_text("{}")
    summarise(jobs[1], kind="job")
    assert [job.of_a_sweep for job in jobs] == [True, True, False]
    assert len({job.id for job in jobs}) == 3
    assert [find(job.id) for job in jobs] == jobs
    named = RunDir(tmp_path / "sweeps" / "2026-01-02" / "101112-a-k3x9abcd" / "3")
    named.path.mkdir(parents=True)
    summarise(named, kind="job")
    assert named.id == "k3x9abcd/3"


def test_updates_change_what_they_name_and_leave_the_rest(outputs: Path) -> None:
    run = folder(outputs, "101112-a-k3x9abcd")
    summarise(run, status="finished", of_a_later_version=[1], metrics={"test/error": 0.01})
    with run.edit_summary() as summary:
        summary.metrics = {**summary.metrics, "val/error": 0.02}
        summary.test_reads += 1
    assert json.loads((run.path / "summary.json").read_text()) == {
        "status": "finished",
        "of_a_later_version": [1],
        "metrics": {"test/error": 0.01, "val/error": 0.02},
        "test_reads": 1,
    }


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_paths_that_are_no_utf8_survive_in_a_configuration(tmp_path: Path) -> None:
    values = {"dataset": {"path": os.fsdecode(b"/data/caf\xe9")}, "name": "a"}
    composed, job = RunDir(tmp_path / "run"), RunDir(tmp_path / "job")
    composed.config.parent.mkdir(parents=True)
    # as Hydra writes it
    composed.config.write_text(OmegaConf.to_yaml(OmegaConf.create(values)))
    run_job.write(job, values, ["dataset.path=…"])
    for folder in (composed, job):
        assert run_config.plain(folder) == values == OmegaConf.to_container(run_config.load(folder))
