"""Optimizers against torch.optim, to the bit, and against closed forms."""

from __future__ import annotations

import io
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlrun.datasets.language.windows import Windows
from dlrun.engine.objective import Objective
from dlrun.engine.protocols import Optimizer
from dlrun.errors import ConfigError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.mse import mse
from dlrun.optimizers.adam import Adam
from dlrun.optimizers.descent import Descent, clip_gradient
from dlrun.optimizers.lbfgs import LBFGS
from dlrun.optimizers.least_squares import LeastSquares, solve
from dlrun.optimizers.sgd import SGD
from dlrun.optimizers.torch_optimizer import adapt
from dlrun.types import Batch

STEPS = 20


def mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3))


def convnet(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 2), nn.Flatten(), nn.Linear(45, 3))


def batches(n: int = STEPS, size: int = 12, shape: tuple[int, ...] = (5,)) -> list[Batch]:
    g = torch.Generator().manual_seed(1)
    draw = partial(torch.randn, generator=g)
    return [Batch(draw(size, *shape), torch.randint(3, (size,), generator=g)) for _ in range(n)]


def rate(step: int) -> float:
    return 0.05 * (1.0 - step / 30)


def run(optimizer: Optimizer, model: nn.Module, data: list[Batch], first: int = 0) -> list[Tensor]:
    objective = Objective(model, cross_entropy)
    return [optimizer.step(objective, b, rate(first + i)).loss for i, b in enumerate(data)]


def reference(optimizer: torch.optim.Optimizer, model: nn.Module, data: list[Batch]) -> None:
    for i, batch in enumerate(data):
        for group in optimizer.param_groups:
            group["lr"] = rate(i)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch.x), batch.y).backward()
        optimizer.step()


def groups(model: nn.Module, weight_decay: float, *, everywhere: bool = False) -> list[dict[str, Any]]:
    """The groups of torch.optim that decay the matrices alone."""
    matrices = [p for p in model.parameters() if p.ndim >= 2 or everywhere]
    others = [p for p in model.parameters() if p.ndim < 2 and not everywhere]
    made = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [g for g in made if g["params"]]


def assert_equal(a: nn.Module, b: nn.Module) -> None:
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q), f"{name}: {(p - q).abs().max()}"


SGDS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    {"weight_decay": 0.1},
]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("options", SGDS, ids=str)
def test_sgd_is_that_of_torch_to_the_bit(options: dict[str, Any], fused: bool) -> None:
    ours, theirs, data = mlp(), mlp(), batches()
    optimizer = Descent(SGD(lr=0.05, **options, fused=fused))
    optimizer.init(Objective(ours, cross_entropy))
    run(optimizer, ours, data)
    own = {k: v for k, v in options.items() if k != "weight_decay"}
    kind = {"fused": True} if fused else {"foreach": True}
    reference(torch.optim.SGD(groups(theirs, options.get("weight_decay", 0.0)), lr=1.0, **own, **kind), theirs, data)
    assert_equal(ours, theirs)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("decoupled", [True, False])
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decay_all": True}], ids=str)
def test_adam_and_adamw_are_those_of_torch_to_the_bit(options: dict[str, Any], decoupled: bool, fused: bool) -> None:
    ours, theirs, data = mlp(), mlp(), batches()
    optimizer = Descent(Adam(lr=0.05, beta2=0.99, eps=1e-6, decoupled=decoupled, fused=fused, **options))
    optimizer.init(Objective(ours, cross_entropy))
    run(optimizer, ours, data)
    made = groups(theirs, options.get("weight_decay", 0.0), everywhere=options.get("decay_all", False))
    cls = torch.optim.AdamW if decoupled else torch.optim.Adam
    kind = {"fused": True} if fused else {"foreach": True}
    reference(cls(made, lr=1.0, betas=(0.9, 0.99), eps=1e-6, **kind), theirs, data)
    assert_equal(ours, theirs)


def test_decoupled_decay_of_sgd_multiplies_the_matrices() -> None:
    ours, theirs, data = mlp(), mlp(), batches(5)
    optimizer = Descent(SGD(lr=0.05, weight_decay=0.1, decoupled=True))
    optimizer.init(Objective(ours, cross_entropy))
    run(optimizer, ours, data)
    for i, batch in enumerate(data):
        grads = torch.autograd.grad(nn.functional.cross_entropy(theirs(batch.x), batch.y), list(theirs.parameters()))
        with torch.no_grad():
            for p, g in zip(theirs.parameters(), grads, strict=True):
                p.copy_(p * (1 - rate(i) * 0.1 * (p.ndim >= 2)) - rate(i) * g)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Descent(SGD(lr=0.05)),
        lambda: Descent(SGD(lr=0.05, momentum=0.9, dampening=0.1, weight_decay=0.1)),
        lambda: Descent(Adam(lr=0.05, weight_decay=0.1, decoupled=True), clip=0.5, accumulate=3),
        lambda: Descent(Adam(lr=0.05, fused=False)),
        lambda: Descent(adapt(torch.optim.NAdam, lr=0.05, weight_decay=0.1)),
        lambda: LBFGS(max_iter=4),
        lambda: LBFGS(max_iter=4, line_search=None),
    ],
    ids=["sgd", "momentum", "adamw", "adam-foreach", "nadam", "lbfgs", "lbfgs-plain"],
)
@pytest.mark.parametrize("at", [0, 3])
def test_a_resumed_optimizer_goes_on_to_the_bit(make: Any, at: int) -> None:
    data = batches(7)
    straight, stopped, resumed = mlp(), mlp(), mlp(seed=5)
    whole, before, after = make(), make(), make()
    for optimizer, model in ((whole, straight), (before, stopped), (after, resumed)):
        optimizer.init(Objective(model, cross_entropy))
    run(whole, straight, data)
    run(before, stopped, data[:at])
    file = io.BytesIO()
    torch.save((stopped.state_dict(), before.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    resumed.load_state_dict(weights)
    after.load_state_dict(state)
    run(after, resumed, data[at:], first=at)
    assert_equal(straight, resumed)


def test_a_state_of_another_model_is_refused() -> None:
    def optimizer(model: nn.Module) -> Descent:
        made = Descent(Adam(lr=0.1))
        made.init(Objective(model, cross_entropy))
        return made

    state = optimizer(nn.Linear(2, 3)).state_dict()
    with pytest.raises(ConfigError, match=r"\[\[3, 2\], \[3\]\].*Resume with the model"):
        optimizer(nn.Linear(4, 3)).load_state_dict(state)


def test_gradients_of_another_memory_layout_are_put_right() -> None:
    # torch's fused kernels read memory in order: a transposed gradient would be applied silently wrong.
    ours, theirs = convnet(), convnet()
    data = [Batch(b.x.contiguous(memory_format=torch.channels_last), b.y) for b in batches(5, shape=(3, 6, 6))]
    optimizer = Descent(SGD(lr=0.05, momentum=0.9))
    optimizer.init(Objective(ours, cross_entropy))
    run(optimizer, ours, data)
    reference(torch.optim.SGD(theirs.parameters(), lr=1.0, momentum=0.9, fused=True), theirs, data)
    assert_equal(ours, theirs)


class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(6.0).view(2, 3))
        self.unused = nn.Parameter(torch.ones(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight.t().contiguous() * x.view(-1, 3, 2)).sum(2)


def test_a_transposed_and_a_missing_gradient() -> None:
    model = Transposed()
    x = torch.arange(6.0).view(1, 6)
    objective = Objective(model, lambda model, batch: model(batch.x).sum(1))
    optimizer = Descent(SGD(lr=1.0, weight_decay=0.5))
    optimizer.init(objective)
    optimizer.step(objective, Batch(x, torch.zeros(1)), 1.0)
    assert torch.equal(model.weight.detach(), torch.arange(6.0).view(2, 3) * 0.5 - x.view(3, 2).t())
    assert torch.equal(model.unused.detach(), torch.full((2, 2), 0.5))


@pytest.mark.parametrize("parts", [2, 5, 7, 40])
def test_accumulated_steps_are_those_of_the_whole_batch(parts: int) -> None:
    whole, cut, data = mlp(), mlp(), batches(5, size=12)
    losses = []
    for model, accumulate in ((whole, 1), (cut, parts)):
        optimizer = Descent(SGD(lr=0.05), accumulate=accumulate)
        optimizer.init(Objective(model, cross_entropy))
        losses.append(torch.stack(run(optimizer, model, data)))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)
    for p, q in zip(whole.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_accumulated_portions_of_text_weigh_by_the_tokens_that_they_predict(parts: int) -> None:
    torch.manual_seed(0)
    windows = Windows(torch.randint(7, (5 * 8 - 3,)), context=8, stride=3)  # the last predicts few, others three
    batch = windows.gather(torch.arange(len(windows)))
    models = [nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    losses = []
    for model, accumulate in zip(models, (1, parts), strict=True):
        objective = Objective(model, cross_entropy)
        optimizer = Descent(SGD(lr=0.5), accumulate=accumulate)
        optimizer.init(objective)
        losses.append(optimizer.step(objective, batch, 0.5).loss)
    torch.testing.assert_close(losses[0], losses[1])
    for p, q in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("bound", [1e-2, 1e6])
def test_clipping_is_that_of_torch(bound: float) -> None:
    ours, theirs, data = mlp(), mlp(), batches()
    optimizer = Descent(SGD(lr=0.05), clip=bound)
    optimizer.init(Objective(ours, cross_entropy))
    torch_sgd = torch.optim.SGD(theirs.parameters(), lr=1.0, fused=True)
    for i, batch in enumerate(data):
        update = optimizer.step(Objective(ours, cross_entropy), batch, rate(i))
        torch_sgd.zero_grad()
        nn.functional.cross_entropy(theirs(batch.x), batch.y).backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), bound)
        torch_sgd.param_groups[0]["lr"] = rate(i)
        torch_sgd.step()
        assert update.grad_norm is not None
        assert torch.equal(update.grad_norm, norm)
    assert_equal(ours, theirs)


def test_clipping_leaves_a_shared_gradient_whole() -> None:
    shared = torch.tensor([3.0, 4.0])
    once, twice = clip_gradient([shared, shared], shared.norm(), 1.0)
    torch.testing.assert_close(once, torch.tensor([0.6, 0.8]), rtol=1e-5, atol=0)
    assert torch.equal(once, twice)
    assert torch.equal(shared, torch.tensor([3.0, 4.0]))


def test_the_norm_is_reported_when_asked_for() -> None:
    model, batch = mlp(), batches(1)[0]
    objective = Objective(model, cross_entropy)
    optimizer = Descent(SGD(lr=0.05))
    optimizer.init(objective)
    assert optimizer.step(objective, batch, 0.0).grad_norm is None
    optimizer.measure_norms = True
    grads = torch.autograd.grad(objective(batch), objective.params)
    found = optimizer.step(objective, batch, 0.0)
    assert found.grad_norm is not None
    assert found.grad_norm.item() == pytest.approx(np.sqrt(sum(float(g.square().sum()) for g in grads)), rel=1e-6)
    assert not found.loss.requires_grad


def test_an_adapted_optimizer_decays_the_matrices_alone() -> None:
    ours, theirs, data = mlp(), mlp(), batches(5)
    rule = adapt(torch.optim.AdamW, lr=0.05, weight_decay=0.1, foreach=True)
    assert rule.lr == 0.05
    optimizer = Descent(rule)
    optimizer.init(Objective(ours, cross_entropy))
    run(optimizer, ours, data)
    reference(torch.optim.AdamW(groups(theirs, 0.1), lr=1.0, foreach=True), theirs, data)
    assert_equal(ours, theirs)
    assert all(p.grad is None for p in ours.parameters())


def test_lbfgs_finds_the_minimum_of_a_quadratic() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, generator=g, dtype=torch.float64)
    y = torch.randn(30, 1, generator=g, dtype=torch.float64)
    model = nn.Linear(4, 1, bias=False).double()
    nn.init.ones_(model.weight)  # else it would be drawn from the generator as the tests before left it
    objective, optimizer = Objective(model, mse), LBFGS(max_iter=50, tolerance_grad=1e-12, tolerance_change=1e-15)
    optimizer.init(objective)
    before = objective(Batch(x, y)).item()
    assert optimizer.step(objective, Batch(x, y), 1.0).loss.item() == before
    expected = np.linalg.lstsq(x.numpy(), y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(model.weight.detach().numpy().T, expected, atol=1e-6)


def test_lbfgs_bears_channels_last() -> None:
    model = convnet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = batches(1, shape=(3, 6, 6))[0]
    objective, optimizer = Objective(model, cross_entropy), LBFGS(max_iter=5)
    optimizer.init(objective)
    first = optimizer.step(objective, x, 1.0).loss
    assert optimizer.step(objective, x, 1.0).loss < first


class Powers(nn.Module):
    def __init__(self, degree: int) -> None:
        super().__init__()
        self.degree = degree
        self.coefficients = nn.Parameter(torch.zeros(degree + 1, 1))

    def features(self, x: Tensor) -> Tensor:
        return x ** torch.arange(self.degree + 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).to(self.coefficients.dtype) @ self.coefficients


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_least_squares_is_the_closed_form(ridge: float) -> None:
    x = torch.linspace(0, 1, 20).unsqueeze(1)
    batch = Batch(x, torch.sin(6 * x))
    model = Powers(3)
    objective, optimizer = Objective(model, mse), LeastSquares(ridge=ridge)
    optimizer.init(objective)
    assert optimizer.step(objective, batch, 1.0).loss.item() == pytest.approx(batch.y.square().mean().item())
    phi = x.double().numpy() ** np.arange(4)
    expected = np.linalg.solve(phi.T @ phi + ridge * np.eye(4), phi.T @ batch.y.double().numpy())
    np.testing.assert_allclose(model.coefficients.detach().numpy(), expected, rtol=1e-5)
    weight = torch.arange(20) % 4 + 0.5
    optimizer.step(objective, Batch(*batch, weight), 1.0)
    w = weight.double().numpy()[:, None]
    expected = np.linalg.solve(phi.T @ (w * phi) + ridge * np.eye(4), phi.T @ (w * batch.y.double().numpy()))
    np.testing.assert_allclose(model.coefficients.detach().numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("degree", [9, 15, 40])
def test_a_high_degree_survives_the_rounding_of_its_coefficients(degree: int) -> None:
    # In float64 the least error at degree 15 needs coefficients of 1e8, which in float32 give an error of 57.
    x = torch.linspace(0, 1, 100).unsqueeze(1)
    batch = Batch(x, torch.sin(6 * x) + 0.1 * torch.randn(100, 1, generator=torch.Generator().manual_seed(0)))
    single, double = Powers(degree), Powers(degree).double()
    for model in (single, double):
        LeastSquares().step(Objective(model, mse), batch, 1.0)
    wide = Batch(batch.x.double(), batch.y.double())
    best = mse(double, wide).item()
    phi = wide.x.numpy() ** np.arange(degree + 1)
    expected = np.linalg.lstsq(phi, wide.y.numpy(), rcond=None)
    assert best == pytest.approx(np.square(phi @ expected[0] - wide.y.numpy()).mean(), rel=1e-6)
    assert mse(single, batch).item() < 1.25 * best


def test_least_squares_of_deficient_rank_has_the_least_norm() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(6, 12, generator=g, dtype=torch.float64)
    y = torch.randn(6, 2, generator=g, dtype=torch.float64)
    np.testing.assert_allclose(solve(x, y).numpy(), np.linalg.pinv(x.numpy()) @ y.numpy(), atol=1e-10)


def test_least_squares_says_which_models_and_targets_it_takes() -> None:
    with pytest.raises(ConfigError, match=r"`Sequential`.*model=polynomial or model=linear"):
        LeastSquares().init(Objective(mlp(), mse))
    classes = Batch(torch.rand(4, 1), torch.zeros(4, dtype=torch.int64))
    objective = Objective(Powers(1), lambda model, batch: model(batch.x).mean())
    with pytest.raises(ConfigError, match="dataset=polynomial"):
        LeastSquares().step(objective, classes, 1.0)
    frozen = Powers(1).requires_grad_(False)
    with pytest.raises(ConfigError, match=r"coefficients is frozen"):
        LeastSquares().init(Objective(frozen, mse))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SGD(lr=-1.0), r"optimizer\.lr is -1\.0"),
        (lambda: SGD(lr=float("nan")), "optimizer.lr is nan"),
        (lambda: SGD(lr=0.1, momentum=2), r"momentum is 2; expected 0 ≤ momentum < 1"),
        (lambda: SGD(lr=0.1, nesterov=True), r"Type for example optimizer\.momentum=0\.9"),
        (lambda: Adam(lr=0.1, beta2=1.0), "0 ≤ beta2 < 1"),
        (lambda: Descent(SGD(lr=0.1), clip=0.0), r"trainer\.clip"),
        (lambda: Descent(SGD(lr=0.1), accumulate=0), r"trainer\.accumulate"),
        (lambda: LBFGS(line_search="wolfe"), "strong_wolfe"),  # type: ignore[arg-type]
        (lambda: LeastSquares(ridge=-1.0), "ridge"),
        (lambda: adapt(torch.optim.LBFGS), "optimizer=lbfgs"),
        (lambda: Descent(SGD(lr=0.1)).init(Objective(nn.ReLU(), mse)), "no parameters"),
    ],
)
def test_values_that_cannot_be_are_refused(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()


def test_a_gradient_method_does_not_import_the_compiler() -> None:
    # The first torch.optim optimizer costs a second of imports (torch._dynamo) that no run here needs.
    program = (
        "import sys, torch; from dlrun.optimizers.descent import Descent; from dlrun.optimizers.adam import Adam;"
        "from dlrun.optimizers import lbfgs, least_squares, sgd, torch_optimizer;"
        "from dlrun.engine.objective import Objective; from dlrun.losses.cross_entropy import cross_entropy;"
        "from dlrun.types import Batch; o = Objective(torch.nn.Linear(2, 2), cross_entropy);"
        "d = Descent(Adam(lr=0.1), clip=1.0, accumulate=2); d.init(o);"
        "d.step(o, Batch(torch.ones(4, 2), torch.zeros(4, dtype=torch.long)), 0.1);"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
