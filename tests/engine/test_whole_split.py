"""Metrics of a whole split: of the outputs of all samples, in order, whatever the batches of an evaluation."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine.evaluation import collect, evaluate
from dlrun.engine.objective import Objective
from dlrun.losses.triplet import triplet
from dlrun.metrics import accuracy, knn_accuracy, recall_at_1
from dlrun.types import Metric, Outputs

CPU = torch.device("cpu")


def half(outputs: Tensor, y: Tensor, inputs: Tensor, train: Outputs) -> float:
    """A metric of a user's own, of all that it can ask for."""
    return float(outputs[0, 0] + 2 * y[-1] + 4 * inputs[-1, 1] + 8 * train.outputs[-1, 0])


setattr(half, "of_split", True)  # noqa: B010


def draw(n: int, seed: int) -> TensorSplit:
    g = torch.Generator().manual_seed(seed)
    return TensorSplit(torch.randn(n, 3, generator=g), torch.randint(4, (n,), generator=g))


@pytest.fixture
def objective() -> Objective:
    torch.manual_seed(0)
    return Objective(nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5)), triplet)


@pytest.mark.parametrize("size", [1, 7, 50])
def test_the_number_is_that_of_all_samples_for_any_batch_size(size: int, objective: Objective) -> None:
    split, train = draw(50, 1), draw(80, 2)
    given: dict[str, Any] = {"recall": recall_at_1, "knn": partial(knn_accuracy, k=3), "half": half}
    found = evaluate(objective, given | {"accuracy": accuracy}, split, batch_size=size, device=CPU, train=train)
    with torch.no_grad():
        outputs, reference = (objective.model.eval()(each.x) for each in (split, train))
    assert found["recall"] == float(recall_at_1(outputs, split.y))
    assert found["knn"] == float(knn_accuracy(outputs, split.y, train=Outputs(reference, train.y), k=3))
    assert found["half"] == pytest.approx(half(outputs, split.y, split.x, Outputs(reference, train.y)), rel=1e-5)
    assert [*found] == ["loss", "accuracy", "recall", "knn", "half"]


def test_neighbours_of_other_classes_alone_tell_nothing() -> None:
    points = torch.arange(6.0).unsqueeze(1)
    known, new = Outputs(points, torch.tensor([0, 0, 0, 1, 1, 1])), torch.tensor([2, 2, 2, 3, 3, 3])
    assert torch.isnan(knn_accuracy(points, new, train=known, k=2))


def test_each_sample_is_asked_once_and_collected_as_well() -> None:
    class Counting(nn.Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Counting.calls += len(x)
            return super().forward(x)

    objective, split = Objective(Counting(3, 5), triplet), draw(50, 1)
    metrics = {"recall": cast("Metric", recall_at_1)}
    means, seen = collect(objective, metrics, split, batch_size=20, device=CPU)
    assert Counting.calls == 50
    assert means["recall"] == float(recall_at_1(seen.output, split.y))


def test_without_the_training_split_what_compares_with_it_is_left_out(objective: Objective) -> None:
    metrics = {"knn": cast("Metric", knn_accuracy), "recall": cast("Metric", recall_at_1)}
    assert [*evaluate(objective, metrics, draw(50, 1), batch_size=20, device=CPU)] == ["loss", "recall"]


def test_anything_but_one_number_is_refused(objective: Objective) -> None:
    def both(outputs: Tensor, y: Tensor) -> tuple[Tensor, int]:
        return outputs.sum(), len(y)

    setattr(both, "of_split", True)  # noqa: B010
    with pytest.raises(TypeError, match="returned a tuple; expected one number"):
        evaluate(objective, {"both": cast("Metric", both)}, draw(50, 1), batch_size=20, device=CPU)
