"""Classes on axis 1 or last, where a batch is by chance as long as there are classes."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from pytest import approx
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.datasets import Pad, from_datasets, from_nested
from dlrun.engine.evaluation import evaluate
from dlrun.engine.forward.metric_inputs import MetricInputs
from dlrun.engine.forward.states import SplitFunction
from dlrun.engine.objective import Objective
from dlrun.losses.class_axis import axis_of
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.entries import OfEntries
from dlrun.losses.of_outputs.torch_loss import TorchLoss
from dlrun.metrics import accuracy
from dlrun.runs.measures.class_axis import settle_class_axis
from dlrun.types import IGNORE_INDEX, Data, Outputs
from tests.facts import says

C = 4
CPU = torch.device("cpu")
TORCH = TorchLoss("cross_entropy", {})


class Tagger(nn.Module):
    """A linear classifier of each token, its classes last or on axis 1, alone or as the entry `tags`."""

    def __init__(self, first: bool, named: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.first, self.named = nn.Linear(3, C), first, named

    def forward(self, x: Tensor) -> Any:
        out = self.linear(x)
        out = out.movedim(-1, 1) if self.first else out
        return {"tags": out} if self.named else out


def padded(named: bool) -> Data:
    """Sequences of 4, 1, 2, 3, 4, 5, … tokens."""
    g = torch.Generator().manual_seed(0)
    rows = []
    for length in (4, 4, 1, 2, 3, 4, 5, 4):
        tags = torch.randint(C, (length,), generator=g)
        rows.append((torch.randn(length, 3, generator=g), {"tags": tags, "length": length} if named else tags))
    given: dict[str, Any] = {"task": "other"} if named else {"task": "dense", "classes": C}
    return from_datasets("rows", rows, collate=Pad(), **given)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("loss", [cross_entropy, TORCH], ids=["ours", "torch"])
def test_batches_as_long_as_there_are_classes_are_read_as_all_others(loss: Any, first: bool, named: bool) -> None:
    data, model = padded(named), Tagger(first, named)
    name = "tags" if named else None
    objective = Objective(model, OfEntries(loss, name, name) if named else loss)
    settle_class_axis(objective, data, CPU)
    x, y = data.train.gather(torch.arange(8))
    y = y["tags"] if named else y
    logits = model.linear(x)
    counted = y != IGNORE_INDEX
    expected = {
        "loss": F.cross_entropy(logits[counted], y[counted]).item(),
        "accuracy": (logits[counted].argmax(-1) == y[counted]).double().mean().item(),
    }
    for size in (1, 2, 3, 8):
        found = evaluate(
            objective, {"accuracy": OfEntries(accuracy, name, name)}, data.train, batch_size=size, device=CPU
        )
        assert found == approx(expected, rel=1e-6)
    four = data.train.gather(torch.tensor([0, 1]))
    taken = MetricInputs("classes", output=name, target=name, axis=axis_of(model, name))
    made, _ = taken(Outputs(model(four.x), four.y))
    assert torch.equal(made, model.linear(four.x).argmax(-1).flatten())


def test_a_function_of_a_whole_split_takes_sequences_of_any_length() -> None:
    data, model = padded(named=False), Tagger(False, named=False)
    objective = Objective(model, cross_entropy)
    metrics: dict[str, Any] = {
        "f1": SplitFunction(partial(f1_score, average="macro"), MetricInputs("classes"), targets_first=True)
    }
    x, y = data.train.gather(torch.arange(8))
    counted = y != IGNORE_INDEX
    expected = f1_score(y[counted], model.linear(x)[counted].argmax(-1), average="macro")
    for size in (1, 3, 8):
        found = evaluate(objective, metrics, data.train, batch_size=size, device=CPU)
        assert found["f1"] == approx(expected)


def test_where_all_are_as_long_metrics_follow_the_loss_and_a_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = torch.randn(6, C, 3), torch.randint(C, (6, C))
    data = from_nested("square", (x, y), task="dense", classes=C)
    for loss, first in ((TORCH, True), (cross_entropy, False)):
        model = Tagger(first, named=False)
        objective = Objective(model, loss)
        settle_class_axis(objective, data, CPU)
        says(capsys.readouterr().out, f"class_axis = {-1 if first else 1}")
        right = (model.linear(x).argmax(-1) == y).double().mean().item()
        found = evaluate(objective, {"accuracy": accuracy}, data.train, batch_size=4, device=CPU)
        assert found["loss"] == approx(F.cross_entropy(model.linear(x).movedim(-1, 1), y).item(), rel=1e-6)
        assert found["accuracy"] == approx(right)
    model = Tagger(True, named=False)
    vars(model)["class_axis"] = 1
    objective = Objective(model, cross_entropy)
    settle_class_axis(objective, data, CPU)
    assert not capsys.readouterr().out
    expected = F.cross_entropy(model.linear(x).movedim(-1, 1), y).item()
    assert objective(data.train.gather(torch.arange(6))).item() == approx(expected, rel=1e-6)
