"""The parts of a stack: the layout of weights, gradients and evaluations, and the benchmark of it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import stacked as benchmark
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine.batches import Batches
from dlrun.engine.evaluation import evaluate as evaluate_alone
from dlrun.engine.objective import Objective
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.triplet import triplet
from dlrun.metrics import accuracy, error, nll
from dlrun.models.mlp import MLP
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.sgd import SGD
from dlrun.stacked import evaluation
from dlrun.stacked.dense import chain
from dlrun.stacked.descent import StackedDescent
from dlrun.stacked.evaluation import StackedSplits, evaluate
from dlrun.stacked.objective import StackedObjective
from dlrun.stacked.weights import make_layout
from dlrun.types import IGNORE_INDEX, Batch, Metric

CPU = torch.device("cpu")


def data(n: int, seed: int, *shape: int) -> TensorSplit:
    draw = torch.Generator().manual_seed(seed)
    return TensorSplit(torch.randn(n, *shape, generator=draw), torch.randint(0, 3, (n,), generator=draw))


def objectives(runs: int, *shape: int, sizes: tuple[int, ...] = (5,), bf16: bool = False) -> list[Objective]:
    torch.manual_seed(0)
    autocast = ("cpu", torch.bfloat16) if bf16 else None
    return [Objective(MLP(shape, 3, hidden=list(sizes)), cross_entropy, autocast=autocast) for _ in range(runs)]


@pytest.mark.usefixtures("blocks")
def test_a_row_is_a_run() -> None:
    members = objectives(3, 4)
    params = [member.params for member in members]
    lies = make_layout(params)
    weights = lies.stack(params)
    for run, member in enumerate(members):
        for view, row, p in zip(
            lies.views(weights),
            lies.row(weights, run, member.params),
            member.params,
            strict=True,
        ):
            assert torch.equal(view[run], p)
            assert torch.equal(row, p)


@pytest.mark.parametrize("runs", [1, 30])
@pytest.mark.parametrize(("n", "count"), [(1 << 10, 1), (1 << 14, 2)])
def test_small_parameters_are_one_block_and_large_ones_a_block_each(runs: int, n: int, count: int) -> None:
    params = [[torch.zeros(n // 4, 4), torch.zeros(n)] for _ in range(runs)]
    assert len(make_layout(params).stack(params)) == count


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-6), (True, 1e-2)])
@pytest.mark.parametrize("sizes", [(5,), (3, 3)])
def test_the_gradient_of_the_sum_is_that_of_every_run(sizes: tuple[int, ...], bf16: bool, tolerance: float) -> None:
    members = objectives(3, 4, sizes=sizes, bf16=bf16)
    stacked = StackedObjective(members)
    batches = [Batch(*data(6, run, 4).gather(torch.arange(6))) for run in range(3)]
    losses, grads, _ = stacked.gradient(Batch(*(torch.stack(parts) for parts in zip(*batches, strict=True))))
    for run, (one, batch) in enumerate(zip(members, batches, strict=True)):
        loss = one(batch)
        assert torch.allclose(losses[run], loss, atol=tolerance)
        for grad, expected in zip(
            stacked.layout.row(grads, run, one.params), torch.autograd.grad(loss, one.params), strict=True
        ):
            assert torch.allclose(grad, expected, atol=tolerance)


@pytest.mark.parametrize("shape", [(4,), (2, 3)])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_an_evaluation_is_that_of_every_run(shape: tuple[int, ...], chunk: int) -> None:
    members = objectives(3, *shape)
    metrics: dict[str, Metric] = {"accuracy": accuracy, "error": error, "nll": nll, "top": partial(largest, k=2)}
    for splits in ([data(25, 0, *shape)] * 3, [data(25, run, *shape) for run in (0, 1, 0)]):
        found = evaluate(StackedObjective(members), metrics, StackedSplits(splits, CPU), batch_size=chunk)
        for run, (one, split) in enumerate(zip(members, splits, strict=True)):
            assert found[run] == pytest.approx(
                evaluate_alone(one, metrics, split, batch_size=1000, device=CPU), rel=1e-6
            )


def test_values_of_a_batch_are_of_batches_as_large_as_of_a_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # a chunk of all runs would be smaller than the batch of an evaluation
    monkeypatch.setattr(evaluation, "VALUES", 3 * 4 * 5)
    torch.manual_seed(0)
    members = [Objective(MLP((4,), 3), partial(triplet, mining="hard")) for _ in range(3)]
    split = data(25, 0, 4)
    found = evaluate(StackedObjective(members), {}, StackedSplits([split] * 3, CPU), batch_size=12)
    for each, one in zip(found, members, strict=True):
        assert each == pytest.approx(evaluate_alone(one, {}, split, batch_size=12, device=CPU), rel=1e-6)


def largest(model: nn.Module, batch: Batch, k: int) -> tuple[Tensor, int]:
    """A user's metric on the model itself."""
    return model(batch.x).topk(k).values.double().sum(), len(batch.x)


def test_a_chain_is_known_by_its_types_alone() -> None:
    class Own(MLP):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    def places(model: nn.Module) -> dict[int, int]:
        return {id(p): i for i, p in enumerate(model.parameters())}

    hooked = nn.Sequential(nn.Linear(2, 2))
    hooked[0].register_forward_hook(lambda module, given, found: 2 * found)
    for model, known in (
        (MLP((2,), 3), True),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False), nn.Tanh()), True),
        (nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.0)), True),
        (Own((2,), 3), False),
        (nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)), False),
        (hooked, False),
    ):
        assert (chain(model, places(model)) is not None) == known, model


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("width", [3, 30])
def test_a_module_that_stands_in_a_chain_twice_is_two_layers(width: int) -> None:
    torch.manual_seed(0)
    act = nn.Tanh()
    model = nn.Sequential(nn.Linear(4, width), act, nn.Linear(width, 2), act, nn.Linear(2, 3), act)
    alone, both = Objective(model, cross_entropy), Batch(torch.randn(2, 5, 4), torch.randint(0, 3, (2, 5)))
    stacked = StackedObjective([alone] * 2)
    assert stacked._chain is not None
    expected = torch.stack([alone(Batch(x, y)) for x, y in zip(*both, strict=True)])
    assert torch.allclose(stacked(both), expected, atol=1e-6)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("parts", [2, 4])
def test_chunks_of_a_text_weigh_as_many_tokens_as_they_predict(parts: int) -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randint(0, 5, (3, 7, 6), generator=draw) for _ in range(2))
    y[:, 0, :5] = IGNORE_INDEX
    y[1, -1, 2:] = IGNORE_INDEX
    torch.manual_seed(1)
    members = [Objective(nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5)), cross_entropy) for _ in range(3)]
    optimizers = [Descent(SGD(lr=0.1), accumulate=parts) for _ in members]
    for one, optimizer in zip(members, optimizers, strict=True):
        optimizer.init(one)
    stacked = StackedObjective(members)
    descent = StackedDescent(optimizers, stacked)
    found = descent.step(stacked, Batch(x, y), descent.lr)
    for run, (one, optimizer) in enumerate(zip(members, optimizers, strict=True)):
        expected = optimizer.step(one, Batch(x[run], y[run]), 0.1)
        assert float(found.loss[run]) == pytest.approx(float(expected.loss), rel=1e-6)
        for mine, own in zip(stacked.layout.row(stacked.weights, run, one.params), one.params, strict=True):
            assert torch.allclose(mine, own, atol=1e-7)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("parts", [1, 4])
def test_classes_that_do_not_count_have_no_part_in_a_stacked_mean(parts: int) -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(3, 8, 4, generator=draw), torch.randint(0, 5, (3, 8), generator=draw)
    # of run 1 a whole chunk of two does not count
    y[0, 3] = y[1, 0] = y[1, 1] = y[2, 7] = IGNORE_INDEX
    members = [Objective(nn.Linear(4, 5), cross_entropy) for _ in range(3)]
    optimizers = [Descent(SGD(lr=0.1), accumulate=parts) for _ in members]
    for one, optimizer in zip(members, optimizers, strict=True):
        optimizer.init(one)
    stacked = StackedObjective(members)
    descent = StackedDescent(optimizers, stacked)
    # by hand: the whole batch at once, in one piece
    logits = [one.model(x[run]).detach() for run, one in enumerate(members)]
    expected = [float(F.cross_entropy(each, y[run], ignore_index=IGNORE_INDEX)) for run, each in enumerate(logits)]
    found = descent.step(stacked, Batch(x, y), descent.lr)
    assert found.loss.tolist() == pytest.approx(expected, rel=1e-6)
    for run, (one, optimizer) in enumerate(zip(members, optimizers, strict=True)):
        alone = optimizer.step(one, Batch(x[run], y[run]), 0.1)
        assert float(alone.loss) == pytest.approx(expected[run], rel=1e-6)
        for mine, own in zip(stacked.layout.row(stacked.weights, run, one.params), one.params, strict=True):
            assert torch.allclose(mine, own, atol=1e-7)


def test_the_benchmark_compares_the_same_runs() -> None:
    case = benchmark.cases(quick=True)[0]
    assert benchmark.difference(case) < 1e-6
    seconds, weights = benchmark.bare(case, 0)
    index = Batches(case.split, case.batch_size, seed=0, device=CPU).indices(0)[0]
    torch.manual_seed(0)
    assert seconds > 0
    assert not torch.equal(weights[0], next(case.make().parameters()))
    assert torch.isfinite(F.cross_entropy(case.make()(case.split.x[index]), case.split.y[index]))
