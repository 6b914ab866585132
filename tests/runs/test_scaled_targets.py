"""Scaled targets: the loss sees them scaled, metrics and predictions are in the targets' own unit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dlrun
from dlrun.config import compose
from dlrun.datasets import from_tensors
from dlrun.datasets.tensors.spec import scale_of
from dlrun.engine.evaluation import evaluate
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.entries import OfEntries
from dlrun.losses.mse import mse
from dlrun.losses.of_outputs.adapt import adapt
from dlrun.metrics import mse as squared_error
from dlrun.runs.build import build
from dlrun.runs.measures.guess import loss_of_guess
from dlrun.runs.presentation import announce
from dlrun.stacked.why_not import why_not
from dlrun.storage.lookup import all_runs
from dlrun.types import Data
from tests.conftest import Called
from tests.facts import says

Call = Callable[..., Called]
CPU = torch.device("cpu")

HOUSES = """
import torch
from dlrun.datasets import from_tensors
from dlrun.datasets.tensors.spec import scale_of


def houses(scale_targets=True):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=g)
    y = torch.stack([3e5 + 1e5 * x[:, 0], 2.0 + 0.1 * x[:, 1]], 1)
    return from_tensors(
        "houses", (x, y), task="regression", validation_size=40, test_size=40, scale_targets=scale_targets
    )
"""
QUICK = ("trainer.figures=false", "tracking.enabled=false", "loss=mse", "model=linear")


@pytest.fixture
def houses(here: Path) -> Path:
    (here / "houses.py").write_text(HOUSES)
    (here / "conf" / "dataset").mkdir(parents=True)
    (here / "conf" / "dataset" / "houses.yaml").write_text("_target_: houses.houses\nscale_targets: true\n")
    return here


def test_metrics_and_predictions_are_in_the_targets_own_unit(houses: Path, call: Call) -> None:
    r2 = "+metrics.r2._target_=sklearn.metrics.r2_score"
    done = call("train", "dataset=houses", "trainer.epochs=60", "optimizer.lr=0.05", r2, *QUICK)
    assert done.code == 0, done.err
    says(done.out, "that of a guess, the mean of the targets, is 1")
    (run,) = all_runs()
    loaded = dlrun.load(run.id)
    data = loaded.data
    split = data.test
    assert split is not None
    batch = split.gather(torch.arange(len(split)))
    with torch.no_grad():
        outputs = loaded.model(batch.x.cpu())
    raw, said = (loaded.restore(t.cpu()).double().numpy() for t in (batch.y, outputs))
    assert raw[:, 0].mean() == pytest.approx(3e5, rel=0.2)
    metrics = run.summary().metrics
    assert metrics["test/mse"] == pytest.approx(((raw - said) ** 2).mean(), rel=1e-3)
    assert metrics["test/loss"] < 0.1
    assert metrics["test/r2"] > 0.9
    np.savetxt(houses / "points.csv", batch.x.cpu().numpy(), delimiter=",")
    done = call("predict", run.id, "points.csv")
    assert done.code == 0, done.err
    rows = np.array([list(map(float, line.split(","))) for line in done.out.splitlines()[-len(said) :]])
    assert rows[:, -2:] == pytest.approx(said, rel=1e-4)


def test_the_scale_is_that_of_the_training_split_and_part_of_the_identity(houses: Path) -> None:
    scaled, plain = (
        build(compose.config(["dataset=houses", f"dataset.scale_targets={on}", *QUICK])) for on in ("true", "false")
    )
    y = plain.data.train.gather(torch.arange(len(plain.data.train))).y.double()
    mean, deviation = scaled.data.spec.target_scale or ((), ())
    assert mean == pytest.approx(y.mean(0).tolist(), rel=1e-6)
    assert deviation == pytest.approx(y.std(0, correction=0).tolist(), rel=1e-5)
    assert scaled.data.fingerprint != plain.data.fingerprint
    assert scaled.quantities["loss"]["unit"] != plain.quantities["loss"]["unit"]
    assert scaled.quantities["mse"] == plain.quantities["mse"]
    assert "scale_targets" in str(why_not([scaled.training]))


class Several(nn.Module):
    """A mean and a variance, or a dict with one more entry."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mean, self.other, self.named = nn.Linear(3, 1), nn.Linear(3, 1), named

    def forward(self, x: torch.Tensor) -> object:
        mean, other = self.mean(x), self.other(x).exp()
        return {"mean": mean, "other": other} if self.named else (mean, other)


def test_of_several_outputs_those_of_the_loss_are_scaled_back() -> None:
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    data = from_tensors("scaled", (x, 50 + 20 * x[:, :1]), task="regression", scale_targets=True)
    scale = scale_of(data.spec)
    assert scale
    (x, y), metrics = data.train.gather(torch.arange(30)), {}
    gauss = adapt(nn.GaussianNLLLoss())
    for model, loss, name in (
        (Several(False), gauss, "0"),
        (Several(False), gauss, "1"),
        (Several(True), OfEntries(mse, output="mean"), "mean"),
    ):
        objective = Objective(model, loss)
        objective.target_scale = scale
        metrics = {"m": OfEntries(squared_error, output=name)}
        found = evaluate(objective, metrics, data.train, batch_size=7, device=CPU)["m"]
        raw = scale.undo(model.mean(x)) if name != "1" else model.other(x).exp() * scale.deviation.item() ** 2
        assert found == pytest.approx((raw - scale.undo(y)).square().mean().item(), rel=1e-5)
    nameless = Objective(Several(True), lambda model, batch: (model(batch.x)["mean"] - batch.y).square().mean(1))
    nameless.target_scale = scale
    with pytest.raises(ConfigError, match=r"loss\.output"):
        evaluate(nameless, {"m": OfEntries(squared_error, output="mean")}, data.train, batch_size=7, device=CPU)


def test_large_targets_are_said_where_they_can_be_scaled(houses: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for scaled in ("true", "false"):
        announce(build(compose.config(["dataset=houses", f"dataset.scale_targets={scaled}", *QUICK])))
        assert ("dataset.scale_targets=true" in capsys.readouterr().out) is (scaled == "false")


def test_classes_have_no_scale() -> None:
    with pytest.raises(ConfigError, match="scale_targets"):
        from_tensors("mine", (torch.randn(9, 2), torch.arange(9) % 2), task="classification", scale_targets=True)


def of_classes() -> Data:
    y = torch.tensor([0] * 6 + [1] * 3 + [2])
    return from_tensors("mine", (torch.randn(10, 4), y), task="classification", classes=4, validation_size=0)


@pytest.mark.parametrize(
    "loss",
    [
        cross_entropy,
        adapt(nn.CrossEntropyLoss(label_smoothing=0.1)),
        adapt(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2, 3, 4]))),
    ],
)
def test_a_guess_by_frequencies_has_the_loss_of_constant_logits(loss: Callable[..., torch.Tensor]) -> None:
    data = of_classes()

    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0.6, 0.3, 0.1, 0]).log().clamp(min=-100).expand(len(x), 4)

    objective = Objective(Constant(), loss)
    guess = loss_of_guess(data, objective, CPU)
    assert guess is not None
    assert guess.loss == pytest.approx(evaluate(objective, {}, data.train, batch_size=3, device=CPU)["loss"], rel=1e-6)


def test_a_guess_of_values_is_their_variance_and_none_is_made_where_none_is_known() -> None:
    y = torch.randn(20, 2)
    data = from_tensors("mine", (torch.randn(20, 3), y), task="regression")
    guess = loss_of_guess(data, Objective(nn.Linear(3, 2), mse), CPU)
    assert guess is not None
    assert guess.loss == pytest.approx(float(y.var(0, correction=0).mean()), rel=1e-5)
    assert loss_of_guess(data, Objective(nn.Linear(3, 2), lambda model, batch: model(batch.x).mean()), CPU) is None
    assert loss_of_guess(data, Objective(nn.Linear(3, 2), adapt(nn.BCEWithLogitsLoss())), CPU) is None
