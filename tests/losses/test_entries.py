"""Losses and metrics of entries of the outputs and of the targets."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from pytest import approx
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.datasets import from_nested
from dlrun.engine.evaluation import evaluate
from dlrun.engine.forward.metric_inputs import MetricInputs
from dlrun.engine.forward.states import SplitFunction, StateMetric
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.entries import OfEntries, entry, of_entries
from dlrun.losses.mse import mse
from dlrun.metrics import accuracy, higher_is_better
from dlrun.metrics import mse as squared_error
from dlrun.nests.batch import Batch


class TwoHeads(nn.Module):
    """Logits of a kind, and a size."""

    def __init__(self) -> None:
        super().__init__()
        self.kind, self.size = nn.Linear(4, 3), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"kind": self.kind(x), "size": self.size(x)}


class Share:
    """As torchmetrics: the share of right classes."""

    higher_is_better = True

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.right = self.all = 0

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.right, self.all = self.right + int((preds == target).sum()), self.all + len(target)

    def compute(self) -> float:
        return self.right / self.all


def far(outputs: dict[str, Tensor], y: dict[str, Tensor]) -> Tensor:
    """The largest error of a size in the whole split."""
    return (outputs["size"] - y["size"]).abs().max()


setattr(far, "of_split", True)  # noqa: B010


@pytest.fixture
def drawn() -> tuple[Tensor, dict[str, Tensor]]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(20, 4, generator=g)
    return x, {"kind": torch.randint(3, (20,), generator=g), "size": torch.randn(20, 1, generator=g)}


@pytest.mark.parametrize("size", [1, 7, 20])
def test_values_are_those_of_the_entries(size: int, drawn: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.manual_seed(0)
    (x, y), model = drawn, TwoHeads()
    objective = Objective(model, OfEntries(cross_entropy, "kind", "kind"))
    kind = MetricInputs("classes", output="kind", target="kind")
    metrics: dict[str, Any] = {
        "right": OfEntries(accuracy, "kind", "kind"),
        "size": OfEntries(squared_error, "size", "size"),
        "share": StateMetric(Share(), kind),
        "function": SplitFunction(
            lambda p, t: (p == t).double().mean(),
            MetricInputs("classes", output="kind", target="kind"),
            targets_first=False,
        ),
        "far": far,
        "far_too": OfEntries(partial(_largest), "size", "size"),
    }
    split = from_nested("two", (x, y)).train
    found = evaluate(objective, metrics, split, batch_size=size, device=torch.device("cpu"))
    with torch.no_grad():
        out = model(x)
    right = (out["kind"].argmax(1) == y["kind"]).double().mean()
    assert found["loss"] == approx(float(F.cross_entropy(out["kind"], y["kind"])), rel=1e-6)
    assert [found[name] for name in ("right", "share", "function")] == approx([float(right)] * 3)
    assert found["size"] == approx(float(F.mse_loss(out["size"], y["size"])), rel=1e-6)
    assert found["far"] == found["far_too"] == approx(float((out["size"] - y["size"]).abs().max()))


def _largest(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs - y).abs().max()


setattr(_largest, "of_split", True)  # noqa: B010


def test_the_gradient_is_that_of_the_entry(drawn: tuple[Tensor, dict[str, Tensor]]) -> None:
    (x, y), model = drawn, TwoHeads()
    found = torch.autograd.grad(Objective(model, OfEntries(mse, "size", "size"))(Batch(x, y)), [model.size.weight])
    expected = torch.autograd.grad(F.mse_loss(model(x)["size"], y["size"]), [model.size.weight])
    assert torch.equal(found[0], expected[0])


def test_attributes_are_those_of_the_function() -> None:
    assert higher_is_better(OfEntries(accuracy, "a")) is True
    assert not hasattr(OfEntries(mse), "of_batch")
    assert of_entries(mse, {"output": None}) is mse


def test_an_entry_that_is_none_is_refused_with_those_that_are() -> None:
    for nest in ({"a": 1, "b": 2}, (1, 2)):
        with pytest.raises(ConfigError, match=r"target=c.*: (a, b|0, 1)\."):
            entry(nest, "c", "target")
    with pytest.raises(ConfigError, match="a Tensor, which has none"):
        entry(torch.ones(2), "a", "output")


def test_a_model_of_several_outputs_is_told_to_name_one(drawn: tuple[Tensor, dict[str, Tensor]]) -> None:
    x, y = drawn
    with pytest.raises(ConfigError, match=r"kind: float32 .*\+loss\.output=NAME"):
        cross_entropy(TwoHeads(), Batch(x, y["kind"]))
