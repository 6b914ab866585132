"""One run in several processes: the run of one process, up to rounding."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from dlrun.config import compose
from dlrun.datasets.tensors.augment import Augment
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine.batches import Batches
from dlrun.engine.state import State
from dlrun.errors import RunError
from dlrun.execution.ranks.batches import RankBatches, StandIn
from dlrun.execution.ranks.spread import unused_parameters
from dlrun.runs.build import build
from dlrun.runs.interrupt import Interrupt
from dlrun.runs.open_run import record_failure
from dlrun.storage.journal import curves
from tests.execution.ranks.conftest import Together

OFF = ("tracking.enabled=false", "trainer.figures=false")

CASES = {
    # 1297 samples in batches of 100: a last batch of 97
    "augmented": (
        *("trainer.batch_size=100", "dataset.augment={shift: 1, flip: true}", "optimizer=sgd", "optimizer.lr=0.1"),
        *("trainer.clip=0.5", "trainer.ema=0.9", "trainer.log_gradients=true", "trainer.accumulate=2"),
    ),
    # of 10 batches the last has one sample: two of three processes have none
    "lacking": ("trainer.batch_size=144", "trainer.steps=11", "evaluation.batch_size=7"),
    "weighted": ("loss.class_weights=balanced", "trainer.batch_size=50", "trainer.steps=9", "optimizer=muon"),
}


def summary(here: Path, name: str) -> tuple[Path, dict[str, Any]]:
    (folder,) = here.glob(f"outputs/runs/*/*-{name}-*")
    return folder, json.loads((folder / "summary.json").read_text())


def weights(folder: Path) -> torch.Tensor:
    content = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    return torch.cat([t.flatten().double() for t in content["model"].values()])


def assert_close(here: Path, one: str, other: str) -> None:
    (folder, first), (second_folder, second) = summary(here, one), summary(here, other)
    torch.testing.assert_close(weights(folder), weights(second_folder), rtol=1e-4, atol=2e-6)
    assert first["metrics"] == pytest.approx(second["metrics"], rel=1e-5)
    points, others = curves(folder / "journal.jsonl"), curves(second_folder / "journal.jsonl")
    left_out = ("throughput", "system", "cost", "mfu")
    names = [name for name in points if not name.startswith(left_out)]
    assert {"train/loss", "val/loss"} < {*names}
    for name in names:
        assert [v for _, v in points[name]] == pytest.approx([v for _, v in others[name]], rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("case", CASES)
def test_processes_train_as_one(together: Together, here: Path, case: str) -> None:
    given = (*OFF, "trainer.epochs=1", *CASES[case])
    assert [each.code for each in together(1, "train", "name=one", *given)] == [0]
    for number in (3,) if case == "lacking" else (2,):
        done = together(number, "train", f"name=with{number}", *given)
        assert [each.code for each in done] == [0] * number, done
        assert f"processes {number}, each with" in done[0].out
        assert not any(each.out or each.err for each in done[1:])
        assert_close(here, "one", f"with{number}")


def test_a_text_with_tokens_that_do_not_count(together: Together, here: Path) -> None:
    (here / "text.txt").write_text("the cat sat on the mat. " * 40)
    # windows of 32 of the validation and test splits end before the text does
    given = (*OFF, "dataset=text", "dataset.path=text.txt", "dataset.context=32", "model=gpt", "model.width=16")
    given = (*given, "model.layers=1", "model.heads=2", "model.dropout=0", "trainer.steps=4", "trainer.batch_size=3")
    for number in (1, 2):
        done = together(number, "train", f"name=with{number}", *given)
        assert [each.code for each in done] == [0] * number, done
    assert_close(here, "with1", "with2")


STREAM = """
import torch
from torch.utils.data import IterableDataset
from dlrun.datasets import from_stream

class Numbers(IterableDataset):
    def __iter__(self):
        for i in range(22):
            yield torch.tensor([i / 22.0, (i % 5) / 5.0]), i % 2

def numbers():
    samples = [*Numbers()]
    return from_stream("numbers", Numbers(), samples, task="classification", classes=2, epoch_samples=22)
"""


def test_a_stream_is_cut_and_resumed_as_any_batch(together: Together, here: Path) -> None:
    (here / "own.py").write_text(STREAM)
    # 22 samples in batches of 7: the last of a pass has one
    given = (*OFF, "dataset._target_=own.numbers", "trainer.workers=0", "trainer.batch_size=7", "trainer.log_every=3")
    for number, name in ((1, "one"), (2, "two"), (2, "parts")):
        steps = 5 if name == "parts" else 9
        done = together(number, "train", f"name={name}", f"trainer.steps={steps}", *given)
        assert [each.code for each in done] == [0] * number, done
    folder, _ = summary(here, "parts")
    assert together(2, "resume", str(folder), "trainer.steps=9")[0].code == 0
    torch.testing.assert_close(weights(summary(here, "one")[0]), weights(summary(here, "two")[0]), rtol=1e-4, atol=2e-6)
    assert torch.equal(weights(folder), weights(summary(here, "two")[0]))


def test_a_resumed_run_is_the_same_to_the_bit(together: Together, here: Path) -> None:
    given = (*OFF, "trainer.log_every=5")
    together(2, "train", "name=whole", "trainer.steps=12", *given)
    together(2, "train", "name=parts", "trainer.steps=7", *given)
    folder, _ = summary(here, "parts")
    done = together(2, "resume", str(folder), "trainer.steps=12")
    assert "resumed   from step 7" in done[0].out
    (whole, one), (parts, other) = summary(here, "whole"), summary(here, "parts")
    assert torch.equal(weights(whole), weights(parts))
    assert one["metrics"] == other["metrics"]
    loss = [curves(each / "journal.jsonl")["train/loss"] for each in (whole, parts)]
    # the first part ended with a point of its own
    assert next(point for point in loss[1] if point[0] != 7) == loss[0][0]
    # and another number of processes takes it on
    assert together(1, "resume", str(folder), "trainer.steps=13", "trainer.devices=1")[0].code == 0
    done = together(3, "resume", str(folder), "trainer.steps=14", "trainer.devices=3")
    assert [each.code for each in done] == [0, 0, 0], done


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["optimizer=lbfgs", "trainer.batch_size=null"], "LBFGS computes its step in one process"),
        (["trainer.batch_size=1"], "Type trainer.batch_size=2 or more"),
        (["-m", "seed=0,1"], "would start 2 copies"),
        (["trainer.devices=3"], "torchrun has started 2 processes. Type trainer.devices=2"),
        (["optimizer.nothing=3"], "nothing"),
    ],
)
def test_what_processes_cannot_share(together: Together, given: Sequence[str], words: str) -> None:
    first, second = together(2, "train", *OFF, *given)
    assert first.code == 2
    assert words in first.err
    assert "Traceback" not in first.err
    assert second.code
    assert not second.out


FAILING = """
import os
from torch.nn import functional as F

def loss(model, batch):
    if {when} and os.environ.get("RANK") == "1":
        {what}
    return F.cross_entropy(model(batch.x), batch.y, reduction="none")
"""


@pytest.mark.parametrize(
    ("when", "what", "words"),
    [
        ("len(batch.y) == 32", "raise ValueError('no such day')", "Process 1 of 2: Step 1 failed in the loss"),
        ("len(batch.y) == 32", "os.kill(os.getpid(), 9)", "Another process of this run has ended"),
    ],
)
def test_a_process_that_ends_ends_the_run(together: Together, here: Path, when: str, what: str, words: str) -> None:
    (here / "own.py").write_text(FAILING.format(when=when, what=what))
    first, second = together(2, "train", *OFF, "name=ends", "loss._target_=own.loss", "trainer.steps=5")
    assert (first.code, second.code != 0) == (1, True)
    assert words in first.err
    _, content = summary(here, "ends")
    assert content["status"] == "failed"
    assert words in content["error"]


def test_ctrl_c_ends_all_after_the_same_step(together: Together, here: Path) -> None:
    (here / "own.py").write_text(
        FAILING.format(
            when="len(batch.y) == 32 and not hasattr(loss, 'sent')", what="loss.sent = os.kill(os.getpid(), 2)"
        )
    )
    given = ("trainer.checkpoint_every=1000", "trainer.epochs=1000")
    first, second = together(2, "train", *OFF, "name=stopped", "loss._target_=own.loss", *given)
    assert (first.code, second.code) == (130, 130)
    folder, content = summary(here, "stopped")
    assert content["status"] == "killed"
    assert torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["state"]["step"] == content["steps"]


@pytest.mark.parametrize("error, status", [(SystemExit(143), "killed"), (ValueError(), "failed")])
def test_a_signal_is_the_end_though_the_launcher_has_ended_too(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, status: str
) -> None:
    written: list[str] = []
    monkeypatch.setattr("dlrun.runs.open_run._write_status", lambda run, status, error: written.append(status))
    ranks = SimpleNamespace(explain=lambda error: "another has ended")
    observers = SimpleNamespace(end=lambda *given, **named: None)
    built = SimpleNamespace(training=SimpleNamespace(ranks=ranks), observers=observers)
    run: Any = SimpleNamespace(built=built, recorder=SimpleNamespace(close=lambda: None), state=State())
    raised = SystemExit if status == "killed" else RunError
    with pytest.raises(raised), record_failure(run, Interrupt()):
        raise error
    assert written == [status]


class Ranks:
    """Another process that has got a signal."""

    def stop(self, wanted: bool, number: int | None) -> tuple[bool, int | None]:
        return True, signal.SIGTERM


def test_the_signal_of_another_process_is_not_the_first_of_two() -> None:
    with Interrupt() as interrupt:
        assert interrupt.stops(cast("Any", Ranks()))()
        assert interrupt.signal == signal.SIGTERM
        # all processes get it, this one a moment later
        with interrupt.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
        assert not interrupt.obeyed_at_once
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_sweep_has_one_process_a_job(call: Any) -> None:
    done = call("train", "-m", *OFF, "trainer.devices=2", "seed=0,1")
    assert (done.code, "a job of a sweep has one device" in done.err) == (2, True)


def parts(split: TensorSplit, ranks: int, **options: Any) -> list[RankBatches]:
    given: dict[str, Any] = {"seed": 3, "device": torch.device("cpu"), **options}
    return [RankBatches(split, **given, rank=rank, ranks=ranks) for rank in range(ranks)]


@pytest.mark.parametrize("size", [4, 5, 7, 11, 40])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_parts_of_batches_make_them(size: int, ranks: int) -> None:
    split = TensorSplit(torch.rand(11, 1, 6, 6), torch.arange(11))
    options: dict[str, Any] = {"size": size, "augment": Augment(shift=2, flip=True, crop=0.8)}
    whole = Batches(split, seed=3, device=torch.device("cpu"), **options)
    for step in (0, 1, 3):
        all_of = [batches.start(step) for batches in parts(split, ranks, **options)]
        for batch in itertools.islice(whole.start(step), 7):
            found = [part for part in map(next, all_of) if not isinstance(part, StandIn)]
            assert torch.equal(torch.cat([part.y for part in found]), batch.y)
            torch.testing.assert_close(torch.cat([part.x for part in found]), batch.x)
            assert max(map(len, (part.y for part in found))) - min(map(len, (part.y for part in found))) <= 1


def test_a_model_with_batch_norms_is_looked_at() -> None:
    training = build(compose.config([*OFF, "model=resnet20", "model.width=4"]), try_steps=False).training
    before = [buffer.clone() for buffer in training.objective.buffers()]
    assert not unused_parameters(training)
    assert all(map(torch.equal, training.objective.buffers(), before))
