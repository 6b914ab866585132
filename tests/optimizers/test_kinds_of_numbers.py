"""Complex weights and sparse gradients, against torch.optim."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlrun.engine.ema import Average
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.optimizers.adam import Adam
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.lbfgs import LBFGS
from dlrun.optimizers.least_squares import LeastSquares
from dlrun.optimizers.muon import Muon
from dlrun.optimizers.sgd import SGD
from dlrun.optimizers.torch_optimizer import adapt
from dlrun.types import Batch, Rule


class Wave(nn.Module):
    """A complex matrix and a real one."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.wave = nn.Parameter(torch.randn(5, 8, dtype=torch.complex64, generator=g))
        self.head = nn.Parameter(torch.randn(8, 3, generator=g))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(torch.complex64) @ self.wave).abs() @ self.head


class Bag(nn.Module):
    def __init__(self, *, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(9, 4, sparse=sparse), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.embedding(x).mean(1))
        return out


def waves() -> list[Batch]:
    g = torch.Generator().manual_seed(1)
    return [Batch(torch.randn(12, 5, generator=g), torch.randint(3, (12,), generator=g)) for _ in range(20)]


def bags() -> list[Batch]:
    g = torch.Generator().manual_seed(1)
    return [Batch(torch.randint(9, (6, 4), generator=g), torch.randint(3, (6,), generator=g)) for _ in range(10)]


def train(optimizer: Descent | LBFGS, model: nn.Module, data: list[Batch]) -> list[Tensor]:
    objective = Objective(model, cross_entropy)
    optimizer.init(objective)
    for batch in data:
        optimizer.step(objective, batch, 0.05)
    return [p.detach() for p in model.parameters()]


def reference(make: Any, model: nn.Module, data: list[Batch], *, clip: float | None = None) -> list[Tensor]:
    optimizer = make([*model.parameters()])
    for batch in data:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch.x), batch.y).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return [p.detach() for p in model.parameters()]


NESTEROV: dict[str, Any] = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}


@pytest.mark.parametrize(
    ("rule", "cls", "arguments"),
    [
        (Adam(lr=0.05), torch.optim.Adam, {}),
        (Adam(lr=0.05, weight_decay=0.3), torch.optim.Adam, {"weight_decay": 0.3}),
        (Adam(lr=0.05, weight_decay=0.3, decoupled=True), torch.optim.AdamW, {"weight_decay": 0.3}),
        (SGD(lr=0.05), torch.optim.SGD, {}),
        (SGD(lr=0.05, **NESTEROV), torch.optim.SGD, NESTEROV),
    ],
)  # fmt: skip
def test_complex_weights_move_as_in_torch_to_the_bit(rule: Rule, cls: Any, arguments: dict[str, Any]) -> None:
    found = train(Descent(rule), Wave(), waves())
    expected = reference(lambda p: cls(p, lr=0.05, foreach=True, **arguments), Wave(), waves())
    assert all(map(torch.equal, found, expected))


def test_a_traced_step_of_complex_weights_is_the_same() -> None:
    p, q = (torch.full((3,), 1 + 2j) for _ in range(2))
    grads = [torch.tensor([1 - 1j, 0.5j, 2])]
    for each, rate in ((p, 0.1), (q, torch.tensor(0.1, dtype=torch.float64))):
        rule = Adam(lr=0.1)
        rule.init([each], [True])
        for _ in range(3):
            rule.update([each], grads, rate)
    torch.testing.assert_close(p, q)


def test_clipping_and_averaging_take_the_modulus() -> None:
    found = train(Descent(SGD(lr=0.05), clip=0.1), Wave(), waves())
    expected = reference(lambda p: torch.optim.SGD(p, lr=0.05), Wave(), waves(), clip=0.1)
    torch.testing.assert_close(found, expected)
    p = torch.tensor([2 + 4j])
    average = Average([p], 0.5)
    p.zero_()
    average.update(100)
    assert average.weights[0].item() == 1 + 2j


def test_lbfgs_takes_complex_weights() -> None:
    batch = waves()[0]
    objective = Objective(Wave(), cross_entropy)
    before = float(objective(batch).detach())
    train(LBFGS(), objective.model, [batch] * 5)
    assert float(objective(batch).detach()) < 0.5 * before


def test_methods_of_real_matrices_refuse_complex_ones() -> None:
    rule = Muon(lr=0.1)
    rule.hidden = [True, False]
    with pytest.raises(ConfigError, match="optimizer=adamw"):
        rule.init([*Wave().parameters()], [True, True])
    model = nn.Module()
    model.coefficients = nn.Parameter(torch.zeros(2, 1, dtype=torch.complex64))
    model.features = lambda x: x  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="optimizer=lbfgs"):
        LeastSquares().init(Objective(model, cross_entropy))
    with pytest.raises(ConfigError, match=r"Leave optimizer\.fused out"):
        Adam(lr=0.1, fused=True).init([torch.zeros(2, dtype=torch.complex64)], [True])


@pytest.mark.parametrize("rule", [SGD(lr=0.05, momentum=0.9, weight_decay=0.1), Adam(lr=0.05), Muon(lr=0.05)])
@pytest.mark.parametrize("options", [{}, {"clip": 0.05}, {"accumulate": 2}])
def test_a_sparse_gradient_is_that_of_the_dense_embedding(rule: Rule, options: dict[str, Any]) -> None:
    sparse = train(Descent(rule, **options), Bag(sparse=True), bags())
    torch.testing.assert_close(sparse, train(Descent(rule, **options), Bag(sparse=False), bags()))


@pytest.mark.filterwarnings("ignore:Sparse invariant")
def test_optimizers_of_torch_get_sparse_gradients() -> None:
    found = train(Descent(adapt(torch.optim.Adagrad, lr=0.05)), Bag(sparse=True), bags())
    torch.testing.assert_close(found, reference(lambda p: torch.optim.Adagrad(p, lr=0.05), Bag(sparse=True), bags()))
    options: list[dict[str, Any]] = [{"clip": 0.05}, {"accumulate": 2}, {}]
    dense = [train(Descent(adapt(torch.optim.SGD, lr=0.05), **o), Bag(sparse=False), bags()) for o in options]
    for expected, each in zip(dense, options, strict=True):
        found = train(Descent(adapt(torch.optim.SGD, lr=0.05), **each), Bag(sparse=True), bags())
        torch.testing.assert_close(found, expected)


def test_what_torch_refuses_sparse_is_refused() -> None:
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        train(Descent(adapt(torch.optim.Adam, lr=0.05)), Bag(sparse=True), bags()[:1])


def test_sparse_gradients_reach_lbfgs() -> None:
    batch = bags()[:1]
    torch.testing.assert_close(train(LBFGS(), Bag(sparse=True), batch), train(LBFGS(), Bag(sparse=False), batch))


def test_arguments_that_an_optimizer_refuses_are_one_message() -> None:
    objective = Objective(Bag(sparse=False), cross_entropy)
    with pytest.raises(ConfigError, match=r"torch.optim.RAdam does not accept .*: Invalid beta parameter at index 1"):
        Descent(adapt(torch.optim.RAdam, lr=0.1, betas=[0.9, 1.5])).init(objective)
    with pytest.raises(ConfigError, match="Muon only supports 2D parameters"):
        Descent(adapt(torch.optim.Muon, lr=0.1)).init(objective)
    with pytest.raises(ConfigError, match=r"optimizer\.lr=None is no number"):
        adapt(torch.optim.SGD, lr=None)
