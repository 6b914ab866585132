"""The metrics of a run: those that its outputs bear, and none that was taken away."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlrun.storage.lookup import all_runs
from tests.facts import refuses, says

QUICK = ("trainer.steps=12", "tracking.enabled=false", "trainer.threads=1")

MINE = """
from torch import nn
from torch.nn import functional as F


class Auto(nn.Module):
    def __init__(self, input_shape, width=8):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 64))

    def forward(self, x):
        return self.net(x)


class Named(nn.Module):
    def __init__(self, input_shape, outputs):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))

    def forward(self, x):
        return {"logits": self.net(x)}


def reconstruction(model, batch):
    return (model(batch.x) - batch.x.flatten(1)).square().mean(1)


def named(model, batch):
    return F.cross_entropy(model(batch.x)["logits"], batch.y, reduction="none")


def plain(model, batch):
    return F.cross_entropy(model(batch.x), batch.y, reduction="none")
"""


@pytest.fixture
def mine(here: Path) -> Path:
    (here / "mine.py").write_text(MINE)
    for group, part in (
        ("model", "Auto"),
        ("model", "Named"),
        *(("loss", n) for n in ("reconstruction", "named", "plain")),
    ):
        (here / "conf" / group).mkdir(parents=True, exist_ok=True)
        (here / "conf" / group / f"{part.lower()}.yaml").write_text(f"_target_: mine.{part}\n")
    return here


def names(metrics: dict[str, float]) -> set[str]:
    return {name.partition("/")[2] for name in metrics}


@pytest.mark.parametrize(
    ("model", "loss", "reason"),
    [("Auto", "reconstruction", "64 values for 10 classes"), ("Named", "named", "returns a dict")],
)
def test_outputs_that_are_no_logits_have_no_error(mine: Path, call, model: str, loss: str, reason: str) -> None:
    parts = (f"model={model.lower()}", f"loss={loss}")
    done = call("train", *parts, *QUICK)
    assert done.code == 0, done.err
    says(done.out, "accuracy, error are not computed", reason)
    (run,) = all_runs()
    summary = run.summary()
    assert names(summary.metrics) == {"loss"}
    assert summary.selected_by == "val/loss"
    refuses(call("train", *parts, *QUICK, "evaluation.monitor=val/error"), "val/error", "val/loss")
    assert call("test", run.id).code == 0


def test_a_loss_of_ones_own_on_logits_keeps_the_error(mine: Path, call) -> None:
    assert call("train", "loss=plain", *QUICK).code == 0
    (run,) = all_runs()
    assert names(run.summary().metrics) == {"loss", "accuracy", "error"}


def test_a_metric_of_the_task_is_taken_away(here: Path, call) -> None:
    assert call("train", "+metrics.error=null", *QUICK).code == 0
    (run,) = all_runs()
    assert names(run.summary().metrics) == {"loss", "accuracy"}
    assert run.summary().selected_by == "val/loss"
    refuses(call("train", "+metrics.eror=null", *QUICK), "metrics.eror=null", "error")


def test_a_metric_that_is_a_module_is_evaluated(here: Path, call) -> None:
    (here / "drop.py").write_text(
        "from torch import nn\n"
        "class Drop(nn.Module):\n"
        "    higher_is_better = False\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.net = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(10))\n"
        "    def forward(self, model, batch):\n"
        "        return nn.functional.cross_entropy(self.net(model(batch.x)), batch.y, reduction='sum'), len(batch.x)\n"
    )
    done = call("train", "dataset=digits", "+metrics.drop._target_=drop.Drop", *QUICK)
    assert done.code == 0, done.err
    metrics = all_runs()[-1].summary().metrics
    # in evaluation neither layer does anything: mean 0 and deviation 1 are those of a new batch norm
    assert metrics["val/drop"] == pytest.approx(metrics["val/loss"], rel=1e-4)
