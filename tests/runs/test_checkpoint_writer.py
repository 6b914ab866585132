"""Checkpoints written beside training: with a stand-in for the copying from a GPU, which is held up at will."""

from __future__ import annotations

import errno
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dlrun.errors import RunError
from dlrun.runs.differences import differences
from dlrun.runs.recording import checkpoint_writer
from dlrun.runs.recording.checkpoint_writer import Saver, on_host
from dlrun.storage import checkpoint
from dlrun.storage.checkpoint import BestWeights, Checkpoint
from dlrun.storage.journal import Journal, read
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.facts import says

Call = Callable[..., Called]
QUICK = ("tracking.enabled=false", "trainer.figures=false", "evaluation.test=never", "trainer.log_every=1")
FULL = OSError(28, "No space left on device")


class Gate:
    """A snapshot that is complete once the gate is open."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, content: Any) -> tuple[Any, Callable[[], None]]:
        return on_host(content), lambda: None if self.open.wait(20) else pytest.fail("nobody opened")


class Lines:
    """A journal that notes when it is synced."""

    def __init__(self, order: list[str]) -> None:
        self.order = order

    def sync(self) -> None:
        self.order.append("journal")


def content(step: int, w: torch.Tensor | None = None) -> Checkpoint:
    model = {"w": torch.full((3,), float(step)) if w is None else w}
    return Checkpoint(model=model, optimizer={}, average=None, state={"step": step})


def best(step: int) -> BestWeights:
    return BestWeights(step, {}, {"w": torch.full((3,), -float(step))})


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was written, in its order."""
    written: list[str] = []
    save = checkpoint.save

    def noted(path: Path, content: dict[str, Any]) -> None:
        save(path, content)
        written.append(path.stem)

    monkeypatch.setattr(checkpoint, "save", noted)
    return written


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """The errors that the next writes of a last checkpoint fail with."""
    errors: list[Exception] = []
    save = checkpoint.save

    def failing(path: Path, content: dict[str, Any]) -> None:
        if path.stem == "last" and errors:
            raise errors.pop(0)
        save(path, content)

    monkeypatch.setattr(checkpoint, "save", failing)
    return errors


def at_once(content: Any) -> tuple[Any, Callable[[], None]]:
    return on_host(content), lambda: None


def test_what_is_written_is_what_was_there_when_it_was_saved(tmp_path: Path, order: list[str]) -> None:
    gate, run, w = Gate(), RunDir(tmp_path), torch.ones(3)
    saver = Saver(run, Lines(order), gate)  # type: ignore[arg-type]
    saver.save(content(5, w), best(4))
    w.zero_()
    assert not order
    gate.open.set()
    saver.insist()
    assert order == ["best", "journal", "last"]
    assert checkpoint.load(run.last).model["w"].tolist() == [1, 1, 1]
    assert checkpoint.load_best(run.best).step == 4


def test_one_is_under_way_at_a_time_and_a_best_is_written_once(tmp_path: Path, order: list[str]) -> None:
    run, seen = RunDir(tmp_path), []

    def slow(content: Any) -> tuple[Any, Callable[[], None]]:
        seen.append(order.count("last"))
        return on_host(content), lambda: time.sleep(0.02)

    saver = Saver(run, Lines(order), slow)  # type: ignore[arg-type]
    for step in range(4):
        saver.save(content(step), best(0 if step < 2 else 2))
    saver.close()
    assert seen == [0, 1, 2, 3]
    assert order.count("best") == 2
    assert checkpoint.load(run.last).step == 3


@pytest.mark.parametrize("snapshot", [None, at_once])
def test_a_full_disk_is_a_warning_and_the_end_waits(
    snapshot: Any, tmp_path: Path, full: list[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    saver = Saver(RunDir(tmp_path), Lines([]), snapshot)  # type: ignore[arg-type]
    full += [FULL, FULL]
    saver.save(content(1), best(1))
    saver.save(content(2), best(1))
    saver.insist()
    told = capsys.readouterr().err
    says(told, "No checkpoint at step 1", "No checkpoint at step 2", "in memory only")
    assert checkpoint.load(RunDir(tmp_path).last).step == 2


def test_a_disk_that_stays_full_is_an_error(
    tmp_path: Path, full: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_writer, "PATIENCE", 0.0)
    saver = Saver(RunDir(tmp_path), Lines([]), at_once)  # type: ignore[arg-type]
    full += [FULL] * 9
    saver.save(content(1), None)
    with pytest.raises(RunError, match=r"not saved .* the disk is full"):
        saver.insist()


def test_a_folder_that_may_not_be_written_is_no_full_disk(
    tmp_path: Path, full: list[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    saver = Saver(RunDir(tmp_path), Lines([]), None)  # type: ignore[arg-type]
    full += [PermissionError(errno.EACCES, "Permission denied", "last.pt")]
    saver.save(content(1), None)
    saver.insist()
    told = capsys.readouterr().err
    says(told, "in memory only", "Permission denied: 'last.pt'")
    assert "full" not in told


def test_any_other_error_is_raised_at_the_next_look_and_told_at_the_end(
    tmp_path: Path, full: list[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    saver = Saver(RunDir(tmp_path), Lines([]), at_once)  # type: ignore[arg-type]
    full += [ValueError("lost the device"), ValueError("again")]
    saver.save(content(1), None)
    with pytest.raises(ValueError, match="lost the device"):
        saver.save(content(2), None)
    saver.save(content(3), None)
    saver.close()
    says(capsys.readouterr().err, "ValueError: again")


def test_a_copy_keeps_strides_ties_and_versions_and_no_memory() -> None:
    w = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    model = OrderedDict(a=w, b=w.detach(), c=torch.ones(()))
    model._metadata = {"": {"version": 2}}  # type: ignore[attr-defined]
    copied = on_host(Checkpoint(model, optimizer={"steps": [(1, torch.zeros(2))]}, average=None, state={}))
    assert copied.model["a"].stride() == w.stride()
    assert copied.model["a"] is copied.model["b"]
    assert copied.model._metadata == {"": {"version": 2}}
    assert copied.model["a"].data_ptr() != w.data_ptr()
    assert torch.equal(copied.model["a"], w)
    assert copied.optimizer["steps"][0][0] == 1
    assert copied.average is None


def test_lines_and_syncs_from_two_threads_are_whole_and_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    thread = threading.Thread(target=lambda: [journal.sync() for _ in range(200)])
    thread.start()
    for step in range(2000):
        journal.metrics(step, 0.0, {"train/loss": 1.0})
    thread.join()
    journal.close()
    assert [r["step"] for r in read(tmp_path / "journal.jsonl")[0]] == list(range(2000))


def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(content: Any) -> tuple[Any, Callable[[], None]]:
        return on_host(content), lambda: time.sleep(0.03)

    monkeypatch.setattr(checkpoint_writer, "make_snapshot", lambda device: slow)


def test_a_run_is_the_same_run(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ("train", "trainer.steps=40", "trainer.checkpoint_every=3", *QUICK)
    assert call(*argv).code == 0
    beside(monkeypatch)
    assert call(*argv).code == 0
    assert list(differences(*all_runs())) == []


def test_a_run_that_fails_leaves_its_last_checkpoint_whole(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    beside(monkeypatch)
    rising = ("schedule._target_=mine.rising", "optimizer=sgd", "optimizer.lr=0.01")
    Path("mine.py").write_text("def rising(step, steps, warmup=0.0):\n    return 1.0 if step < 20 else 1e32\n")
    done = call("train", "trainer.steps=40", "trainer.checkpoint_every=1", *rising, *QUICK)
    assert done.code == 1
    run = all_runs()[0]
    assert run.summary().status == "failed"
    assert checkpoint.load(run.last).step >= 20
    assert not list(run.last.parent.glob(".*"))
    assert not [t for t in threading.enumerate() if t.name == "checkpoint"]
