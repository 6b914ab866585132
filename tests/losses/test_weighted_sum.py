"""A sum of losses with weights: its terms as curves, one pass of the model, exact means."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine.evaluation import evaluate
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.of_outputs.adapt import adapt
from dlrun.losses.of_outputs.of_outputs import OfOutputs
from dlrun.losses.penalties import l1, l2
from dlrun.losses.weighted_sum import WeightedSum
from dlrun.storage.lookup import all_runs
from dlrun.types import Batch
from tests.conftest import Called
from tests.facts import says

Call = Callable[..., Called]
CPU, N, C = torch.device("cpu"), 30, 4
W = torch.tensor([1.0, 2.0, 0.5, 3.0])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.calls = nn.Linear(3, C), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.layer(x)
        return out


def draw() -> Batch:
    g = torch.Generator().manual_seed(1)
    return Batch(torch.randn(N, 3, generator=g), torch.randint(C, (N,), generator=g))


def entropy(model: nn.Module, batch: Batch) -> Tensor:
    p = model(batch.x).softmax(1)
    return -(p * p.log()).sum(1)


@pytest.mark.parametrize("weight", [None, W], ids=["plain", "weighted"])
def test_the_sum_is_exact_and_has_the_gradient_of_the_sum(weight: Tensor | None) -> None:
    model, batch = Net(), draw()
    terms = {"ce": nn.CrossEntropyLoss(weight=weight), "l2": l2} | ({} if weight is not None else {"entropy": entropy})
    objective = Objective(
        model, adapt(WeightedSum(terms, {"l2": 0.1, "entropy": -0.5} if weight is None else {"l2": 0.1}))
    )
    logits = model.layer(batch.x)
    expected = F.cross_entropy(logits, batch.y, weight) + 0.1 * model.layer.weight.square().sum()
    if weight is None:
        p = logits.softmax(1)
        expected = expected + 0.5 * (p * p.log()).sum(1).mean()
    model.calls = 0
    found = objective(batch)
    assert model.calls == 1
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for one, other in zip(
        torch.autograd.grad(found, objective.params), torch.autograd.grad(expected, objective.params), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)
    split = TensorSplit(batch.x, batch.y)
    for size in (1, 7, 1000):
        loss = evaluate(objective, {}, split, batch_size=size, device=CPU)["loss"]
        assert loss == pytest.approx(expected.item(), rel=1e-6)


def test_weights_of_modules_in_terms_are_trained() -> None:
    class Centres(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centres = nn.Parameter(torch.zeros(C, C))

        def forward(self, outputs: Tensor, y: Tensor) -> Tensor:
            return (outputs - self.centres[y]).square().mean(1)

    objective = Objective(Net(), adapt(WeightedSum({"ce": cross_entropy, "centres": OfOutputs(Centres())})))
    assert len(objective.params) == 3
    assert all(grad is not None for grad in torch.autograd.grad(objective(draw()), objective.params))


def test_what_has_no_exact_mean_is_refused() -> None:
    made = adapt(WeightedSum({"ce": nn.CrossEntropyLoss(weight=W), "entropy": entropy}))
    with pytest.raises(ConfigError, match="different things"):
        evaluate(Objective(Net(), made), {}, TensorSplit(*draw()), batch_size=7, device=CPU)
    with pytest.raises(ConfigError, match="no terms"):
        WeightedSum({})
    with pytest.raises(ConfigError, match="l2"):
        WeightedSum({"l2": l2}, {"l1": 1.0})
    with pytest.raises(ConfigError, match="no matrices"):
        l1(nn.Flatten(), draw())
    assert not WeightedSum({"ce": cross_entropy}).of_batch


def test_each_term_of_a_run_is_a_curve(call: Call) -> None:
    terms = (
        "+loss.terms.ce._target_=torch.nn.CrossEntropyLoss",
        "+loss.terms.ce.label_smoothing=0.1",
        "+loss.terms.l2._target_=dlrun.losses.penalties.l2",
        "+loss.weights.l2=0.001",
    )
    quick = ("trainer.steps=3", "trainer.figures=false", "tracking.enabled=false")
    done = call("train", "loss=sum", *terms, *quick, "evaluation.monitor=val/loss_ce")
    assert done.code == 0, done.err
    summary = all_runs()[0].summary()
    for split in ("train", "val", "test"):
        of = {name: summary.metrics[f"{split}/{name}"] for name in ("loss", "loss_ce", "loss_l2", "error")}
        assert of["loss"] == pytest.approx(of["loss_ce"] + 0.001 * of["loss_l2"], rel=1e-6)
    assert summary.selected_by == "val/loss_ce"
    done = call("train", "loss=sum", *quick)
    assert done.code == 2
    says(done.err, "+loss.terms.ce._target_")
    done = call("train", "loss=sum", *terms, "+loss.terms.ce.smoothing=1", *quick)
    assert done.code == 2
    says(done.err, "loss.terms.ce.smoothing")
    assert call("resume", all_runs()[0].id, "trainer.steps=4").code == 0


def test_a_function_with_arguments_is_a_term() -> None:
    smoothed = partial(cross_entropy, label_smoothing=0.2)
    one = Objective(Net(), adapt(WeightedSum({"a": smoothed}, {"a": 2.0})))
    assert one(draw()).item() == pytest.approx(2 * smoothed(Net(), draw()).item(), rel=1e-6)


def test_weights_of_samples_are_in_the_sum() -> None:
    model, batch, weight = Net(), draw(), torch.rand(N)
    objective = Objective(model, adapt(WeightedSum({"ce": nn.CrossEntropyLoss(), "l2": l2, "entropy": entropy})))
    with torch.no_grad():
        each = F.cross_entropy(model(batch.x), batch.y, reduction="none") + entropy(model, batch)
        expected = ((each * weight).sum() / weight.sum() + l2(model, batch)).item()
    assert objective(Batch(*batch, weight)).item() == pytest.approx(expected, rel=1e-6)
    split = TensorSplit(*batch, weight)
    assert evaluate(objective, {}, split, batch_size=7, device=CPU)["loss"] == pytest.approx(expected, rel=1e-6)


HEADS = """
import torch
from torch import nn
from dlrun.datasets import from_nested


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.kind, self.size = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 1)

    def forward(self, x):
        h = self.body(x).relu()
        return {"kind": self.kind(h), "size": self.size(h)}


def things():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=g)
    y = {"kind": torch.arange(60) % 3, "size": x[:, :1].clone()}
    return from_nested("things", (x, y), validation_size=10, test_size=10)
"""


def test_two_heads_have_a_term_each(here: Path, call: Call) -> None:
    (here / "mine.py").write_text(HEADS)
    for group, part in (("dataset", "things"), ("model", "Heads")):
        (here / "conf" / group).mkdir(parents=True)
        (here / "conf" / group / "mine.yaml").write_text(f"_target_: mine.{part}\n")
    terms = [
        f"+loss.terms.{name}.{key}={value}"
        for name, target in (("kind", "torch.nn.CrossEntropyLoss"), ("size", "dlrun.losses.mse.mse"))
        for key, value in (("_target_", target), ("output", name), ("target", name))
    ]
    quick = ("trainer.steps=3", "trainer.batch_size=10", "trainer.figures=false", "tracking.enabled=false")
    done = call("train", "dataset=mine", "model=mine", "loss=sum", *terms, "+loss.weights.size=0.5", *quick)
    assert done.code == 0, done.err
    of = all_runs()[0].summary().metrics
    assert of["test/loss"] == pytest.approx(of["test/loss_kind"] + 0.5 * of["test/loss_size"], rel=1e-6)
