"""Metrics that add up states of their own, and functions of predictions: exact for any batches of an evaluation."""

from __future__ import annotations

import importlib
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor, nn

from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine.evaluation import evaluate
from dlrun.engine.forward.detections import as_samples
from dlrun.engine.forward.metric_inputs import MetricInputs
from dlrun.engine.forward.states import SplitFunction, StateMetric
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.mse import mse
from dlrun.types import IGNORE_INDEX, Batch, Outputs

CPU, N, C = torch.device("cpu"), 200, 4


class F1:
    """Macro F1 by the protocol of torchmetrics."""

    higher_is_better = True

    def __init__(self, average: str = "macro") -> None:
        self.average = average
        self.reset()

    def reset(self) -> None:
        self.table = torch.zeros(3, C)

    def update(self, preds: Tensor, target: Tensor) -> None:
        if preds.is_floating_point():
            assert bool((preds >= 0).all()), "expected probabilities"
            preds = preds.argmax(1)
        one, other = nn.functional.one_hot(preds, C), nn.functional.one_hot(target, C)
        self.table = self.table + torch.stack([(one * other).sum(0), one.sum(0), other.sum(0)])

    def compute(self) -> Any:
        hit, said, true = self.table
        each = 2 * hit / (said + true)
        return (
            {"macro": each.mean(), "least": each.min()}
            if self.average == "both"
            else (each if self.average == "none" else each.mean())
        )


class OfBatches(F1):
    """The last batch's value: no sum of states."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.reset()
        super().update(preds, target)


@pytest.fixture
def split() -> TensorSplit:
    g = torch.Generator().manual_seed(1)
    return TensorSplit(torch.randn(N, 3, generator=g), torch.randint(C, (N,), generator=g))


@pytest.fixture
def objective() -> Objective:
    torch.manual_seed(0)
    return Objective(nn.Linear(3, C), cross_entropy)


def outputs_of(objective: Objective, split: TensorSplit) -> Tensor:
    with torch.no_grad():
        found: Tensor = objective.model(split.x)
    return found


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_number_is_scikit_learns_for_any_batch_size(size: int, objective: Objective, split: TensorSplit) -> None:
    outputs = outputs_of(objective, split)
    y, classes, shares = split.y.numpy(), outputs.argmax(1).numpy(), outputs.softmax(1).numpy()
    given: dict[str, Any] = {
        "f1": StateMetric(F1(), MetricInputs("probabilities")),
        "by_class": StateMetric(F1("none"), MetricInputs("classes")),
        "both": StateMetric(F1("both"), MetricInputs("classes")),
        "sk": SplitFunction(partial(sk.f1_score, average="macro"), MetricInputs("classes"), targets_first=True),
        "auc": SplitFunction(
            partial(sk.roc_auc_score, multi_class="ovr"), MetricInputs("probabilities"), targets_first=True
        ),
    }
    for name in ("f1", "by_class", "both"):
        given[name].rehearse(Outputs(outputs[:2], split.y[:2]), C, ["a", "b c", "d", "e"])
    found = evaluate(objective, given, split, batch_size=size, device=CPU)
    each = sk.f1_score(y, classes, average=None)
    assert found["f1"] == found["both_macro"] == pytest.approx(each.mean(), rel=1e-6)
    assert found["both_least"] == pytest.approx(each.min(), rel=1e-6)
    assert [found[f"by_class_{name}"] for name in ("a", "b_c", "d", "e")] == pytest.approx(each.tolist(), rel=1e-6)
    assert found["sk"] == pytest.approx(each.mean(), rel=1e-9)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(y, shares, multi_class="ovr"), rel=1e-6)
    assert {*found} == {
        *("loss", "f1", "both_macro", "both_least", "sk", "auc"),
        *(f"by_class_{name}" for name in ("a", "b_c", "d", "e")),
    }


def test_each_evaluation_begins_anew_and_leaves_the_metric_as_it_was(objective: Objective, split: TensorSplit) -> None:
    metric: Any = StateMetric(F1(), MetricInputs("classes"))
    first = evaluate(objective, {"f1": metric}, split, batch_size=50, device=CPU)
    part = TensorSplit(split.x[:20], split.y[:20])
    evaluate(objective, {"f1": metric}, part, batch_size=50, device=CPU)
    assert evaluate(objective, {"f1": metric}, split, batch_size=50, device=CPU) == first
    assert not metric.metric.table.any()
    assert metric.higher_is_better is True


def test_tokens_are_samples_and_those_that_do_not_count_are_left_out() -> None:
    g = torch.Generator().manual_seed(0)
    logits, y = torch.randn(6, 5, C, generator=g), torch.randint(C, (6, 5), generator=g)
    y[0, 2:] = IGNORE_INDEX
    preds, target = MetricInputs("classes")(Outputs(logits, y))
    assert len(preds) == len(target) == 27
    assert torch.equal(preds, logits.argmax(-1)[y != IGNORE_INDEX])
    pixels, y = torch.randn(3, C, 2, 5, generator=g), torch.randint(C, (3, 2, 5), generator=g)
    y[0, 0] = IGNORE_INDEX
    preds, target = MetricInputs("classes")(Outputs(pixels, y))
    assert torch.equal(preds, pixels.argmax(1)[y != IGNORE_INDEX])
    assert torch.equal(target, y[y != IGNORE_INDEX])
    y = torch.randint(C, (6, 5), generator=g)
    y[0, 2:] = IGNORE_INDEX
    row, target = MetricInputs("outputs")(Outputs(logits, y))
    assert row.shape == (1, 27, C) and target.shape == (1, 27)


def test_labels_and_values() -> None:
    outputs, labels = torch.tensor([[-1.0, 2.0], [0.3, -0.2]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    preds, target = MetricInputs("probabilities", "sigmoid")(Outputs(outputs, labels))
    assert torch.equal(preds, outputs.sigmoid()) and torch.equal(target, labels.long())
    assert MetricInputs("classes", "sigmoid")(Outputs(outputs, labels))[0].tolist() == [[0, 1], [1, 0]]
    shares = outputs.sigmoid()
    assert MetricInputs("classes", "none")(Outputs(shares, labels))[0].tolist() == [[0, 1], [1, 0]]
    both = MetricInputs("positive")(Outputs(outputs, torch.tensor([1, 0])))[0]
    assert torch.equal(both, outputs.softmax(1)[:, 1])
    # one value a sample is a vector, as scikit-learn has it
    values = torch.randn(9, 1), torch.randn(9, 1)
    split = TensorSplit(*values)
    metric: Any = SplitFunction(sk.r2_score, MetricInputs("outputs", "none"), targets_first=True)
    found = evaluate(Objective(nn.Identity(), mse), {"r2": metric}, split, batch_size=4, device=CPU)
    assert found["r2"] == pytest.approx(sk.r2_score(values[1].numpy(), values[0].numpy()), rel=1e-6)


def test_a_metric_that_depends_on_the_batches_is_refused(objective: Objective, split: TensorSplit) -> None:
    found = Outputs(outputs_of(objective, split)[:2], split.y[:2])
    with pytest.raises(TypeError, match=r"evaluation\.batch_size"):
        StateMetric(OfBatches(), MetricInputs("classes")).rehearse(found, C)


def test_what_is_no_number_is_refused(objective: Objective, split: TensorSplit) -> None:
    class Curve(F1):
        def compute(self) -> Any:
            return self.table, self.table

    with pytest.raises(TypeError, match="no metrics"):
        StateMetric(Curve(), MetricInputs("classes")).rehearse(Outputs(outputs_of(objective, split), split.y), C)


def test_torchmetrics_numbers_are_scikit_learns(objective: Objective, split: TensorSplit) -> None:
    reason = "needs torchmetrics: pip install torchmetrics"
    tm = pytest.importorskip("torchmetrics.classification", reason=reason)
    outputs = outputs_of(objective, split)
    given: dict[str, Any] = {
        name: StateMetric(getattr(tm, name)(num_classes=C), MetricInputs("probabilities"))
        for name in ("MulticlassF1Score", "MulticlassAUROC", "MulticlassAveragePrecision")
    }
    y, shares = split.y.numpy(), outputs.softmax(1).numpy()
    for size in (1, 7, 1000):
        found = evaluate(objective, given, split, batch_size=size, device=CPU)
        expected = (
            sk.f1_score(y, shares.argmax(1), average="macro"),
            sk.roc_auc_score(y, shares, multi_class="ovr"),
            sk.average_precision_score(y, shares),
        )
        assert [found[name] for name in given] == pytest.approx(expected, rel=1e-5)
        assert not math.isnan(sum(found.values()))


def test_padded_values_are_in_no_metric() -> None:
    class Padding(TensorSplit):
        """Rows of which the first 3, 4 or 5 elements are real."""

        def gather(self, index: Tensor) -> Batch:
            mask = torch.arange(5) < (3 + index % 3)[:, None]
            return Batch(self.x[index], self.y[index] * mask, mask=mask)

    g = torch.Generator().manual_seed(0)
    split = Padding(torch.randn(9, 5, generator=g), torch.randn(9, 5, generator=g))
    mask = split.gather(torch.arange(9)).mask
    assert mask is not None
    metric: Any = SplitFunction(sk.mean_absolute_error, MetricInputs("outputs", "none"), targets_first=True)
    expected = sk.mean_absolute_error(split.y[mask].numpy(), split.x[mask].numpy())
    for size in (1, 4, 9):
        found = evaluate(Objective(nn.Identity(), mse), {"mae": metric}, split, batch_size=size, device=CPU)
        assert found["mae"] == pytest.approx(expected, rel=1e-6)


def test_scikit_learn_gets_the_outputs_of_tokens_of_several_lengths() -> None:
    class Tags(TensorSplit):
        """Rows as long as the longest of the batch, of 3 to 5 tokens."""

        def gather(self, index: Tensor) -> Batch:
            lengths = 3 + index % 3
            long = int(lengths.max())
            y = self.y[index].where(torch.arange(5) < lengths[:, None], IGNORE_INDEX)
            return Batch(self.x[index, :long], y[:, :long])

    g = torch.Generator().manual_seed(0)
    split = Tags(torch.randn(9, 5, C, generator=g), torch.randint(C, (9, 5), generator=g))
    counted = split.gather(torch.arange(9)).y != IGNORE_INDEX
    function = partial(sk.top_k_accuracy_score, k=2, labels=range(C))
    metric: Any = SplitFunction(function, MetricInputs("outputs"), targets_first=True)
    expected = function(split.y[counted].numpy(), split.x[counted].numpy())
    for size in (1, 4, 9):
        found = evaluate(Objective(nn.Identity(), cross_entropy), {"top": metric}, split, batch_size=size, device=CPU)
        assert found["top"] == pytest.approx(expected, rel=1e-9)


class Found:
    """The share of boxes whose label is among those found; a metric of detection by its module."""

    def reset(self) -> None:
        self.hits: list[float] = []

    def update(self, preds: list[dict[str, Tensor]], target: list[dict[str, Tensor]]) -> None:
        for one, other in zip(preds, target, strict=True):
            assert one["boxes"].shape == (len(one["scores"]), 4)
            self.hits += torch.isin(other["labels"], one["labels"]).float().tolist()

    def compute(self) -> dict[str, Tensor]:
        share, none = torch.tensor(self.hits).mean(), torch.tensor(-1.0)
        return {"map": share, "map_50": none, "map_small": none, "classes": torch.arange(3), "map_per_class": none}


def boxes(n: int, found: int, scores: bool) -> dict[str, Tensor]:
    corner = 10 * torch.rand(n, found, 2)
    labels = torch.randint(3, (n, found)).where(torch.arange(found) < torch.randint(1, found + 1, (n, 1)), IGNORE_INDEX)
    made = {"boxes": torch.cat([corner, corner + 1 + 10 * torch.rand(n, found, 2)], 2), "labels": labels}
    return made | ({"scores": torch.rand(n, found)} if scores else {})


class Fixed(nn.Module):
    """Returns its inputs, as a list of samples if asked."""

    def __init__(self, listed: bool) -> None:
        super().__init__()
        self.listed = listed

    def forward(self, x: Any) -> Any:
        return as_samples(x) if self.listed else x


@pytest.mark.parametrize("listed", [True, False])
def test_a_metric_of_detection_gets_samples_without_padding(listed: bool) -> None:
    torch.manual_seed(0)
    x, y = boxes(20, 3, scores=True), boxes(20, 2, scores=False)
    metric = StateMetric(Found(), MetricInputs("outputs", detection=True))
    model = Fixed(listed)
    metric.rehearse(Outputs(model(x), y), None)
    objective, split = Objective(model, lambda model, batch: batch.x["scores"].mean(1)), TensorSplit(x, y)
    sizes = [evaluate(objective, {"map": metric}, split, batch_size=size, device=CPU) for size in (3, 20)]
    pairs = [(set(a[a >= 0].tolist()), b[b >= 0].tolist()) for a, b in zip(x["labels"], y["labels"], strict=True)]
    hits = [label in labels for labels, own in pairs for label in own]
    for found in sizes:
        assert [*found] == ["loss", "map", "map_50"]
        assert found["map"] == pytest.approx(sum(hits) / len(hits))
        assert math.isnan(found["map_50"])
    with pytest.raises(ConfigError, match="boxes"):
        MetricInputs("outputs", detection=True)(Outputs({"object": torch.zeros(2, 3)}, y))


def test_a_function_of_the_user_s_makes_what_the_metric_takes() -> None:
    outputs, y = {"logits": torch.randn(N, C)}, {"kind": torch.randint(C, (N,))}
    made = MetricInputs("outputs", function=lambda outputs, y: (outputs["logits"].argmax(1), y["kind"]))
    metric = StateMetric(F1(), made)
    metric.rehearse(Outputs(outputs, y), C)
    copy = metric.begin()
    metric.add(copy, Outputs(outputs, y))
    expected = sk.f1_score(y["kind"], outputs["logits"].argmax(1), average="macro")
    assert metric.values("f1", copy) == {"f1": pytest.approx(expected, rel=1e-5)}


def test_torchmetrics_map_is_the_example_s(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = pytest.importorskip("torchmetrics.detection", reason="needs torchmetrics: pip install torchmetrics")
    pytest.importorskip("faster_coco_eval", reason="needs faster-coco-eval: pip install faster-coco-eval")
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples" / "detection")
    canvas = importlib.import_module("canvas")
    torch.manual_seed(0)
    y = boxes(60, 2, scores=False)
    place = torch.randint(2, (60, 6))
    near = y["boxes"][torch.arange(60)[:, None], place] + 0.5 * torch.randn(60, 6, 4)
    right = nn.functional.one_hot(y["labels"].clamp(min=0), 3)[torch.arange(60)[:, None], place]
    outputs = {"object": torch.randn(60, 6), "boxes": near, "classes": torch.randn(60, 6, 3) + 3 * right}

    def samples(outputs: dict[str, Tensor], y: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        scores, labels = (outputs["object"].sigmoid()[..., None] * outputs["classes"].softmax(2)).max(2)
        return {"boxes": outputs["boxes"], "scores": scores, "labels": labels}, y

    made = theirs.MeanAveragePrecision(backend="faster_coco_eval")
    metrics = {
        "map": StateMetric(made, MetricInputs("outputs", function=samples, detection=True)),
        "own": StateMetric(canvas.MeanAveragePrecision(), MetricInputs("outputs")),
    }
    found = {}
    for name, metric in metrics.items():
        metric.rehearse(Outputs(outputs, y), None)
        metric.add(copy := metric.begin(), Outputs(outputs, y))
        found |= metric.values(name, copy)
    # areas under one curve: of 101 places, and of all
    assert found["map_50"] == pytest.approx(found["own"], abs=0.02)
    assert 0.1 < found["own"] < 0.9
