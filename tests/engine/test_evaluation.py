"""Evaluation is a quotient of totals: exact for any batch size."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine.evaluation import collect, evaluate
from dlrun.engine.forward.cache import cache_forward
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


def test_the_cache_keeps_methods_apart_and_computes_for_new_inputs() -> None:
    model, x = Counting().eval(), torch.ones(2, 4)
    with cache_forward(model):
        assert torch.equal(model(x), model(x))
        assert torch.equal(model.features(x), x)
        assert model.passes == 2
        model(torch.zeros(2, 4))
        assert model.passes == 3
    model(x)
    assert model.passes == 4


def test_within_the_cache_a_model_is_itself() -> None:
    model, x = Counting().eval(), torch.ones(2, 4)
    before = {**vars(model)}
    with cache_forward(model):
        assert isinstance(model, Counting)
        assert [name for name, _ in model.named_modules()] == ["", "linear"]
        assert torch.equal(model(x=x), model(x=x)) and model.passes == 1
        assert torch.equal(model.forward(x), model(x)) and model.passes == 2
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.linear.weight.zero_()
        assert not torch.equal(other(x), model(x)) and other.passes == 3 and model.passes == 2
    assert {**vars(model)} == before | {"passes": 2}


def test_caches_are_nested_and_primed() -> None:
    model, x, y = Counting().eval(), torch.ones(2, 4), torch.ones(2, 3)
    with cache_forward(model) as cache:
        cache.prime(x, y)
        with cache_forward(model):
            assert model(x) is y and model.forward(x) is y and not model.passes
            model(x.clone())
        assert model.passes == 1


def test_a_layer_called_features_is_no_method() -> None:
    class Layered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.features(x)

    model, x = Layered().eval(), torch.ones(2, 4)
    with cache_forward(model):
        assert model(x) is model(x)
        assert isinstance(model.features, nn.Linear)
        assert model.features(x) is not model.features(x)


def test_the_cache_computes_again_where_the_output_would_be_another() -> None:
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).eval(), torch.ones(8, 4)
    with cache_forward(model):
        before = model(x)
        assert before.requires_grad
        with torch.no_grad():
            assert not model(x).requires_grad
            for p in model.parameters():
                p.add_(1.0)
            assert not torch.equal(model(x), before)
            weights = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
            assert not torch.func.functional_call(model, weights, (x,)).any()
            assert model(x).any()
        model.train()
        assert not torch.equal(model(x), model(x))  # a metric that samples dropout


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
