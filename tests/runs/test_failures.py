"""An exception of a user's part, wherever it comes up: one message, with part, step, samples and shapes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from dlrun.engine.failures.explaining import explain, explaining_evaluation
from dlrun.errors import RunError
from dlrun.storage.journal import curves
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.facts import says

Call = Callable[..., Called]
QUICK = ("tracking.enabled=false", "trainer.figures=false", "trainer.compile=false", "dataset=moons")

# every part of it fails once told to, by a file that it is told with
LAB = """
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from dlrun.datasets import from_tensors


def due(part):
    return Path(part).exists()


class Net(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.layer = nn.Linear(2, outputs)

    def forward(self, x):
        if due("model") and self.training:
            x = x[:, :1]
        return self.layer(x)


def loss(model, batch):
    if due("loss") and model.training:
        raise KeyError("weight")
    return F.cross_entropy(model(batch.x), batch.y)


def metric(model, batch):
    if due("metric"):
        raise ZeroDivisionError("no such class")
    mine = batch.y == 7
    return mine.double().sum(), mine.sum()


class Rule:
    lr = 0.1

    def init(self, params, decay):
        pass

    def update(self, params, grads, lr):
        if due("optimizer"):
            raise IndexError("momentum")

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def schedule(step, steps):
    if due("schedule") and step > 2:
        raise ValueError("no rate")
    return 1.0


def vary(x, draw):
    if due("augment"):
        raise TypeError("no picture")
    return x


def data():
    x, y = torch.randn(90, 2, generator=torch.Generator().manual_seed(0)), torch.arange(90) % 2
    made = from_tensors("made", (x, y), task="classification", validation_size=20, test_size=20)
    from dataclasses import replace
    return replace(made, augment=vary)
"""
PARTS = ("model=net", "loss=mine", "optimizer=rule", "schedule=mine", "dataset=made", "+metric=of_sevens")


@pytest.fixture
def lab(here: Path) -> Iterator[Path]:
    (here / "lab.py").write_text(LAB)
    targets = {
        "model/net": "Net", "loss/mine": "loss", "optimizer/rule": "Rule", "schedule/mine": "schedule",
        "dataset/made": "data", "metric/of_sevens": "metric",
    }  # fmt: skip
    for name, target in targets.items():
        path = here / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        head = "# @package metrics.of_sevens\n" if name.startswith("metric") else ""
        path.write_text(f"{head}_target_: lab.{target}\n")
    yield here
    sys.modules.pop("lab", None)


def newest() -> RunDir:
    return all_runs()[-1]


TOLD = {
    "model": "Step 1 failed in the model `Net`: RuntimeError: mat1 and mat2",
    "loss": "Step 1 failed in the loss `loss`: KeyError: 'weight' (lab.py, line",
    "optimizer": "Step 1 failed in the optimizer `Rule`: IndexError: momentum (lab.py, line",
    "schedule": "Step 4 failed in the schedule `schedule`: ValueError: no rate (lab.py, line",
    "augment": "The batch of step 1 failed in the augmentation `vary`: TypeError: no picture (lab.py, line",
    "metric": "The validation after step 1 failed in the metric of_sevens `metric`: ZeroDivisionError: no such class",
}


@pytest.mark.parametrize("part", TOLD)
def test_an_exception_while_training_is_one_message(
    part: str, lab: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dlrun.runs import run

    announce = run.presentation.announce

    def begin(*args: object, **options: object) -> None:
        announce(*args, **options)  # type: ignore[arg-type]
        (lab / part).touch()

    monkeypatch.setattr(run.presentation, "announce", begin)
    done = call("train", *QUICK[:-1], *PARTS, "trainer.steps=6", "trainer.evaluate_every=1", "trainer.batch_size=8")
    assert done.code == 1
    says(done.err, TOLD[part], "DLRUN_TRACEBACK=1")
    assert "Traceback" not in done.err
    if part in ("model", "loss", "optimizer", "schedule"):
        says(done.err, "x: a tensor float32 [8, 2], y: a tensor int64 [8]")
    if part == "metric":
        says(done.err, "samples 0 to 19: x: a tensor float32 [20, 2]")
    assert newest().status() == "failed"
    assert "Traceback" in newest().log.read_text()
    (lab / part).unlink()
    monkeypatch.setattr(run.presentation, "announce", announce)
    again = call("resume", newest().id)
    assert again.code == 0, again.err


def test_a_metric_of_no_sample_is_nan_and_said_once(lab: Path, call: Call) -> None:
    done = call("train", *QUICK[:-1], *PARTS, "trainer.steps=6", "trainer.evaluate_every=2", "trainer.batch_size=8")
    assert done.code == 0, done.err
    said = [line for line in done.err.splitlines() if "val/of_sevens is NaN" in line]
    assert len(said) == 1
    says(done.err, "test/of_sevens is NaN: no sample of the split counts in it")
    assert [step for step, _ in curves(newest().journal)["val/of_sevens"]] == [2, 4, 6]


def test_a_metric_that_fails_on_the_test_split_says_so(lab: Path, call: Call) -> None:
    assert call("train", *QUICK[:-1], *PARTS, "trainer.steps=2", "trainer.batch_size=8").code == 0
    source = (lab / "lab.py").read_text()
    (lab / "lab.py").write_text(source.replace('if due("metric")', "if len(batch.x) == 7"))
    sys.modules.pop("lab")
    done = call("test", newest().id, "--batch-size", "7")
    assert done.code == 1
    says(
        done.err, "The evaluation of the test split failed in the metric of_sevens", "samples 0 to 6", "DLRUN_TRACEBACK"
    )


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_too_little_memory_names_the_batch_size_that_takes_it(error: Exception) -> None:
    said = explain(error, "Step 3", {})
    says(said, "trainer.batch_size", "trainer.accumulate=2")
    with pytest.raises(RunError) as found, explaining_evaluation("The validation after step 3", {}):
        raise error
    says(str(found.value), "The validation after step 3 failed", "evaluation.batch_size")
    assert "trainer." not in str(found.value)
