"""Evaluation is a quotient of totals: exact, whatever the portions."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlrun.datasets.tensors.tensors import TensorSplit
from dlrun.engine.evaluation import Memo, collect, evaluate, remembering
from dlrun.engine.objective import Objective
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.metrics import for_task
from dlrun.types import Batch

CPU = torch.device("cpu")


class Counting(nn.Module):
    """A model that counts its forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.linear(x)

    def features(self, x: Tensor) -> Tensor:
        self.passes += 1
        return x


@pytest.fixture
def split() -> TensorSplit:
    draw = torch.Generator().manual_seed(0)
    return TensorSplit(torch.randn(103, 4, generator=draw), torch.randint(0, 3, (103,), generator=draw))


def oracle(model: Counting, split: TensorSplit) -> dict[str, float]:
    weight, bias = (p.detach().double().numpy() for p in model.linear.parameters())
    logits = split.x.double().numpy() @ weight.T + bias
    y = split.y.numpy()
    nll = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]
    accuracy = float((logits.argmax(1) == y).mean())
    return {"loss": float(nll.mean()), "accuracy": accuracy, "error": 1 - accuracy}


@pytest.mark.parametrize("batch_size", [1, 7, 103, 1000])
def test_the_numbers_are_those_of_numpy_for_any_batch_size(batch_size: int, split: TensorSplit) -> None:
    torch.manual_seed(1)
    model = Counting()
    found = evaluate(
        Objective(model, cross_entropy), for_task("classification"), split, batch_size=batch_size, device=CPU
    )
    expected = oracle(model, split)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_loss_and_metrics_share_one_forward_pass(split: TensorSplit) -> None:
    model = Counting()
    evaluate(Objective(model, cross_entropy), for_task("classification"), split, batch_size=50, device=CPU)
    assert model.passes == 3


def test_a_loss_that_returns_its_mean_is_weighted_by_the_batch(split: TensorSplit) -> None:
    model = Counting()

    def mean(model: nn.Module, batch: Batch) -> Tensor:
        return cross_entropy(model, batch).mean()

    by_sample = evaluate(Objective(model, cross_entropy), {}, split, batch_size=10, device=CPU)
    by_batch = evaluate(Objective(model, mean), {}, split, batch_size=10, device=CPU)
    assert by_batch["loss"] == pytest.approx(by_sample["loss"], rel=1e-6)


def test_a_users_metric_is_a_sum_and_a_count(split: TensorSplit) -> None:
    def confident(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
        chosen = model(batch.x).argmax(1) == 0
        return chosen.double().sum(), len(chosen)

    model = Counting()
    found = evaluate(Objective(model, cross_entropy), {"confident": confident}, split, batch_size=9, device=CPU)
    assert found["confident"] == float((model.linear(split.x).argmax(1) == 0).double().mean())


def test_evaluation_leaves_the_model_in_training_mode_and_without_a_graph(split: TensorSplit) -> None:
    model = Counting().train()
    metrics, seen = collect(Objective(model, cross_entropy), {}, split, batch_size=10, device=CPU)
    assert model.training
    assert not seen.output.requires_grad
    assert torch.equal(seen.x, split.x)
    assert torch.equal(seen.y, split.y)
    assert set(metrics) == {"loss"}


def test_the_memo_remembers_methods_apart_and_forgets_no_new_input() -> None:
    model = Counting().eval()
    memo, x = Memo(model), torch.ones(2, 4)
    assert torch.equal(memo(x), memo(x))
    assert torch.equal(memo.features(x), x)
    assert model.passes == 2
    memo(torch.zeros(2, 4))
    assert model.passes == 3
    assert memo.linear is model.linear


def test_in_all_but_its_answers_the_memo_is_the_model() -> None:
    model = Counting().eval()
    memo, x = remembering(model), torch.ones(2, 4)
    assert isinstance(memo, nn.Module) and isinstance(memo, Counting) and memo
    for _ in range(2):
        assert len(list(memo.parameters())) == 2
        assert [name for name, _ in memo.named_modules()] == ["", "linear"]
    assert memo.get_submodule("linear") is model.linear
    assert torch.equal(memo(x=x), memo(x=x)) and model.passes == 1
    assert torch.equal(memo.forward(x), memo(x))
    assert torch.equal(copy.deepcopy(memo)(x), memo(x))
    memo.passes = 0
    assert model.passes == 0
    layers = remembering(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval())
    assert [type(layer) for layer in layers] == [type(layers[0]), nn.ReLU]  # type: ignore[arg-type, index]
    assert len(layers) == 2  # type: ignore[arg-type]


def test_the_memo_answers_anew_where_the_answer_would_be_another() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).eval()
    memo, x = remembering(model), torch.ones(8, 4)
    before = memo(x)
    assert not before.requires_grad or torch.is_grad_enabled()
    with torch.no_grad():
        assert not memo(x).requires_grad
        for p in model.parameters():
            p.add_(1.0)
        assert not torch.equal(memo(x), before)
        weights = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        assert not torch.func.functional_call(memo, weights, (x,)).any()
        assert memo(x).any()
    memo.train()
    assert not torch.equal(memo(x), memo(x))  # a metric that samples dropout


def test_a_loss_that_penalises_the_parameters_twice_is_evaluated_as_it_is_trained(split: TensorSplit) -> None:
    model = Counting()

    def penalised(model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, nn.Module)
        l1 = sum(p.abs().sum() for p in model.parameters())
        l2 = sum(p.square().sum() for p in model.parameters())
        return cross_entropy(model, batch) + l1 + l2

    found = evaluate(Objective(model, penalised), {}, split, batch_size=50, device=CPU)
    plain = evaluate(Objective(model, cross_entropy), {}, split, batch_size=50, device=CPU)
    norms = sum(float(p.detach().abs().sum() + p.detach().square().sum()) for p in model.parameters())
    assert found["loss"] == pytest.approx(plain["loss"] + norms, rel=1e-5)
