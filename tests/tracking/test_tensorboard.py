"""Runs as TensorBoard shows them: its own reader finds each point of the journal once, after any kill."""

from __future__ import annotations

import math
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata as hparams

from dlrun import tracking
from dlrun.config.settings import Tracking
from dlrun.errors import UserError
from dlrun.storage.journal import Journal, curves
from dlrun.storage.rundir import RunDir
from dlrun.tracking import TRACKERS, uploader
from dlrun.tracking.content.journal_reader import Mark
from dlrun.tracking.mlflow.tracker import Mlflow
from dlrun.tracking.tensorboard.event_file import EventFile, scalar
from dlrun.tracking.tensorboard.run import CURVES
from tests.summaries import summarise
from tests.tracking.folders import CONFIG, MakeRun, MakeSweep, log, train

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ROOT = Path(tracking.__file__).parents[2]
TENSORBOARD = TRACKERS["tensorboard"]
BOTH = CONFIG.replace("tracking: {", "tracking: {backends: [mlflow, tensorboard], ")


def send(folder: Any) -> bool | None:
    return uploader.send(folder, TENSORBOARD, patience=0)


def board(outputs: Path, run: str = "120000-mnist-ab12cd") -> Any:
    """What TensorBoard reads of a run's folder, without leaving out a point."""
    found = EventAccumulator(str(outputs / "tensorboard" / run), {"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def shown(outputs: Path, run: str = "120000-mnist-ab12cd") -> dict[str, list[tuple[int, float]]]:
    found = board(outputs, run)
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def single(value: float) -> float:
    """A value as 32 bits hold it: TensorBoard's are."""
    (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    return float(rounded)


def logged(run: RunDir) -> dict[str, list[tuple[int, float]]]:
    """The journal's curves; it is read by other code than the uploader's."""
    return {tag: [(step, single(value)) for step, value in points] for tag, points in curves(run.journal).items()}


def texts(outputs: Path, tag: str, run: str = "120000-mnist-ab12cd") -> list[tuple[int, str]]:
    return [(event.step, event.tensor_proto.string_val[0].decode()) for event in board(outputs, run).Tensors(tag)]


def settings(outputs: Path, tag: str, run: str = "120000-mnist-ab12cd") -> Any:
    return hparams.parse_session_start_info_plugin_data(board(outputs, run).SummaryMetadata(tag).plugin_data.content)


def status(outputs: Path, run: str = "120000-mnist-ab12cd") -> int | None:
    found = board(outputs, run)
    if hparams.SESSION_END_INFO_TAG not in found.Tags()["tensors"]:
        return None
    content = found.SummaryMetadata(hparams.SESSION_END_INFO_TAG).plugin_data.content
    return int(hparams.parse_session_end_info_plugin_data(content).status)


def test_each_point_of_the_journal_is_shown_once(make_run: MakeRun, outputs: Path) -> None:
    run = make_run(config=BOTH)
    log(run, range(1200), end="finished")
    assert send(run) is True
    assert run.summary().uploaded == {"tensorboard": True}
    found = shown(outputs)
    finals = {"test/error": [(5, 0.25)], "val/error": [(5, single(0.2))]}
    epochs = {"epoch": [(step, single(step / 10)) for step in range(1200)]}
    assert found == logged(run) | finals | epochs
    ((step, description),) = texts(outputs, "description")
    assert step == 0 and "test/error 0.25" in description and "dlrun train seed=0" in description
    params = settings(outputs, hparams.SESSION_START_INFO_TAG).hparams
    assert params["optimizer.lr"].number_value == 0.1
    assert params["model.bias"].bool_value is True
    assert params["model.hidden"].string_value == "[3, 4]"
    assert status(outputs) == 1
    # all of it once more changes nothing
    files = {file: file.read_bytes() for file in (outputs / "tensorboard").rglob("*.*")}
    assert send(run) is True
    assert files == {file: file.read_bytes() for file in (outputs / "tensorboard").rglob("*.*")}


DYING = """
import os, sys
from pathlib import Path
from dlrun.storage.rundir import RunDir
from dlrun.tracking import TRACKERS, uploader
from dlrun.tracking.tensorboard import event_file
death, cut = int(sys.argv[2]), float(sys.argv[3])
encode, calls = event_file.encode, []
def die(events):
    content = encode(events)
    calls.append(content)
    if len(calls) == death:
        # as if the kernel had taken a part of it
        with (Path(sys.argv[4])).open("ab") as file:
            file.write(content[: int(cut * len(content))])
        os.kill(os.getpid(), 9)
    return content
event_file.encode = die
uploader.send(RunDir(Path(sys.argv[1])), TRACKERS["tensorboard"])
"""


def test_a_kill_at_any_place_neither_loses_nor_doubles_a_point(make_run: MakeRun, outputs: Path) -> None:
    run = make_run(config=BOTH)
    log(run, range(3000), end="finished")
    curves_file = outputs / "tensorboard" / run.path.name / CURVES
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for death, cut in [(1, 0.3), (3, 0.999), (2, 0.0), (2, 1.0), (4, 0.5)]:
        command = [sys.executable, "-c", DYING, str(run.path), str(death), str(cut), str(curves_file)]
        assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
        assert tracking.pending(run)
    assert send(run) is True
    found = shown(outputs)
    assert {tag: found[tag] for tag in ("train/loss", "val/loss")} == logged(run)


def test_a_resumed_run_has_its_true_status_and_each_step_once(make_run: MakeRun, outputs: Path) -> None:
    run = make_run(config=BOTH)
    log(run, range(0, 40, 4))
    assert send(run) is True
    assert (run.summary().status, status(outputs)) == ("killed", 2)

    run.config.write_text(BOTH.replace("lr: 0.1", "lr: 0.2"))
    log(run, range(20, 50), end="finished")  # from a checkpoint behind the last point, with more points to log
    assert send(run) is True
    journal = Journal(run.journal)
    for value in (100.0, 200.0):  # one more resumption, to other values
        journal.metrics(45, 4.5, {"train/loss": value})
    journal.event("end", status="finished")
    journal.close()
    assert send(run) is True
    assert dict(logged(run)["train/loss"])[45] == 200.0
    assert shown(outputs)["train/loss"] == logged(run)["train/loss"], "in the order of the steps"
    assert status(outputs) == 1
    assert settings(outputs, hparams.SESSION_START_INFO_TAG).hparams["optimizer.lr"].number_value == 0.2


def test_texts_and_values_that_are_none_are_shown(make_run: MakeRun, outputs: Path) -> None:
    run = make_run(config=BOTH)
    journal = Journal(run.journal)
    journal.metrics(1, 0.1, {"train/loss": math.nan, "grad_norm": math.inf})
    for step, text in ((500, "To be\n# or"), (10_000, "Töten 🎉"), (500, "To be\n# or")):
        journal.event("text", name="samples", step=step, text=text)
    journal.close()
    summarise(run, status="failed", metrics={"test/loss": math.nan, "test/large": 1e300})
    assert send(run) is True
    assert send(run) is True
    found = shown(outputs)
    assert math.isnan(found["train/loss"][0][1]) and found["grad_norm"] == [(1, math.inf)]
    assert len(found["test/loss"]) == 1 and found["test/large"] == [(0, math.inf)]
    assert texts(outputs, "samples") == [(500, "    To be\n    # or\n"), (10_000, "    Töten 🎉\n")]


def test_a_dead_tracker_costs_another_nothing(
    make_run: MakeRun, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(config=BOTH, uploaded={"mlflow": False, "tensorboard": False})
    log(run, range(5), end="finished")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert uploader.send(run, TRACKERS["mlflow"], patience=0) is False
    assert send(run) is True
    assert run.summary().uploaded == {"mlflow": False, "tensorboard": True}
    assert [type(tracker) for tracker in tracking.pending(run)] == [Mlflow]
    assert shown(outputs)["train/loss"] == logged(run)["train/loss"]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with monkeypatch.context() as patched:
        patched.setattr(EventFile, "append", None)
        summarise(run, test_reads=2)
        assert send(run) is False
        assert uploader.send(run, TRACKERS["mlflow"], patience=0) is True
    assert [tracker.name for tracker in tracking.pending(run)] == ["tensorboard"]


def test_both_are_sent_beside_the_trainer(make_run: MakeRun, outputs: Path) -> None:
    run = make_run(config=BOTH, uploaded={"mlflow": False, "tensorboard": False})
    log(run, range(7), end="finished")
    beside = tracking.start(run)
    assert set(beside.processes) == {"mlflow", "tensorboard"}
    assert beside.wait(120), (run.path / "uploader.log").read_text()
    assert run.summary().uploaded == {"mlflow": True, "tensorboard": True}
    assert tracking.link(run) == "dlrun ui ab12cd, tensorboard --logdir outputs/tensorboard"
    tracking.delete(run)
    assert not list((outputs / "tensorboard").iterdir())


def test_a_sweep_is_a_folder_with_its_jobs(make_sweep: MakeSweep, outputs: Path) -> None:
    first, second = make_sweep(1, 2, name="aaaa"), make_sweep(1, 2, name="bbbb")
    for n in range(2):
        train(first, n)
    summarise(first, status="finished")
    assert send(first) is True
    second.reuse(0, first.job(0))
    train(second, 1)
    summarise(second, status="finished")
    assert send(second) is True
    place = outputs / "tensorboard" / second.path.name
    jobs = ["0 optimizer.lr=1 seed=0", "1 optimizer.lr=1 seed=1"]
    assert sorted(folder.name for folder in place.iterdir() if folder.is_dir()) == jobs
    for n, name in enumerate(jobs):
        assert shown(outputs, f"{place.name}/{name}")["train/loss"] == logged(second.run(n))["train/loss"]
    assert "2 jobs, 2 finished" in texts(outputs, "description", place.name)[0][1]
    TENSORBOARD.delete(second)
    assert not place.exists() and len(list((outputs / "tensorboard" / first.path.name).iterdir())) == 4


def test_a_journal_that_was_set_back_is_shown_whole_and_once(make_run: MakeRun, outputs: Path) -> None:
    run = make_run()
    log(run, range(60), end="finished")
    assert send(run)
    whole = run.journal.read_bytes().splitlines(keepends=True)
    run.journal.write_bytes(b"".join(whole[:30]))
    assert send(run)
    log(run, range(25, 90), end="finished")
    assert send(run)
    assert shown(outputs)["train/loss"] == logged(run)["train/loss"]


def test_what_a_cut_batch_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.0"
    file = EventFile(path)
    file.append([scalar("loss", 1.0, step=1, time=1.0)], Mark(10, "ab"))
    whole = path.read_bytes()
    file.append([scalar("loss", 2.0, step=2, time=1.0)], Mark(20))
    file.close()
    content = path.read_bytes()
    for end in range(len(whole), len(content)):
        path.write_bytes(content[:end])
        again = EventFile(path)
        assert (again.progress, path.read_bytes()) == (Mark(10, "ab"), whole), end
        again.close()


def test_a_package_that_is_missing_is_named_first(monkeypatch: pytest.MonkeyPatch) -> None:
    tracking.check(["tensorboard"])
    with pytest.raises(UserError, match=r"tracking\.enabled=false"):
        tracking.check([])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'dlrun\[tensorboard\]'"):
        tracking.check(["tensorboard"])


def test_the_configuration_may_name_every_tracker() -> None:
    (name,) = get_args(get_type_hints(Tracking)["backends"])
    assert set(get_args(name)) == set(TRACKERS)
