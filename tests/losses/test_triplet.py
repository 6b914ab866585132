"""The triplet loss against loops over triplets, written from the papers."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, cast, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.losses.triplet import triplet
from dlrun.types import Batch

Mining = Literal["random", "semi_hard", "hard"]
MININGS: tuple[Mining, ...] = get_args(Mining)

same = nn.Identity()
g = torch.Generator().manual_seed(5)
# one class has a single sample
BATCH = Batch(torch.randn(25, 4, generator=g), torch.cat([torch.randint(6, (24,), generator=g), torch.tensor([6])]))


def loop(batch: Batch, mining: str, *, margin: float = 1.0, squared: bool = False, normalise: bool = False) -> Tensor:
    """The mean of max(0, margin - f(a, c) + f(a, b)) over the triplets that a mining names."""
    z, y = batch.x.double(), batch.y.tolist()
    if normalise:
        z = z / z.square().sum(1, keepdim=True).sqrt()
    values: list[Tensor] = []
    for a in range(len(y)):
        f = [(z[a] - other).square().sum().sqrt() ** (2 if squared else 1) for other in z]
        of_class = [f[b] for b in range(len(y)) if b != a and y[b] == y[a]]
        others = [f[c] for c in range(len(y)) if y[c] != y[a]]
        if not of_class or not others:
            continue
        if mining == "hard":
            values.append((margin - min(others) + max(of_class)).clamp(min=0))
        elif mining == "random":  # the expectation
            values.append(torch.stack([(margin - c + b).clamp(min=0) for b in of_class for c in others]).mean())
        else:
            for b in of_class:
                farther = [c for c in others if c > b]
                values.append((margin - (min(farther) if farther else max(others)) + b).clamp(min=0))
    return torch.stack(values).mean()


def mean(batch: Batch, **options: Any) -> float:
    values, weights = triplet(same, batch, **options)
    return float((values * weights).sum() / weights.sum())


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("distance", ["euclidean", "squared"])
@pytest.mark.parametrize("normalise", [False, True])
def test_the_loss_is_that_of_a_loop_over_triplets(mining: Mining, distance: str, normalise: bool) -> None:
    expected = float(loop(BATCH, mining, margin=0.7, squared=distance == "squared", normalise=normalise))
    with torch.no_grad():  # random triplets: their expectation
        found = mean(BATCH, mining=mining, margin=0.7, distance=distance, normalise=normalise)
    assert found == pytest.approx(expected, rel=1e-5)


def test_distances_are_computed_in_float32_where_a_run_computes_in_tf32() -> None:
    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__name__", "") in ("__matmul__", "matmul", "__rmatmul__"):
                seen.append(torch.get_float32_matmul_precision())
            return func(*args, **(kwargs or {}))

    seen: list[str] = []
    torch.set_float32_matmul_precision("high")
    try:
        with Watch():
            mean(BATCH, mining="hard")
        assert {*seen} == {"highest"}
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_random_triplets_have_that_expectation_and_follow_the_generator() -> None:
    torch.manual_seed(0)
    drawn = [mean(BATCH, mining="random") for _ in range(3000)]
    torch.manual_seed(0)
    assert mean(BATCH, mining="random") == drawn[0]
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert np.mean(drawn) == pytest.approx(float(loop(BATCH, "random")), abs=4 * error)


@pytest.mark.parametrize("mining", MININGS)
def test_a_batch_without_triplets_has_the_loss_zero_and_gradients_zero(mining: Mining) -> None:
    linear = nn.Linear(4, 2)
    for y in (torch.zeros(5, dtype=torch.int64), torch.arange(5)):
        batch = Batch(BATCH.x[:5], y)

        def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
            return triplet(model, batch, mining)

        value = Objective(linear, loss)(batch)
        gradients = torch.autograd.grad(value, [*linear.parameters()])
        assert float(value.detach()) == 0
        assert all(bool((each == 0).all()) for each in gradients)
        with torch.no_grad():
            assert float(triplet(linear, batch, mining)[1].sum()) == 0  # no part in a mean over batches


@pytest.mark.parametrize("mining", MININGS)
def test_equal_embeddings_have_finite_gradients(mining: Mining) -> None:
    x = torch.ones(6, 3, requires_grad=True)
    values, weights = triplet(same, Batch(x, torch.arange(6) % 2), mining)
    (gradient,) = torch.autograd.grad((values * weights).sum(), x)
    assert bool(gradient.isfinite().all())
    assert values.tolist() == pytest.approx([1.0] * 6)


@pytest.mark.parametrize("mining", ["hard", "semi_hard"])
@pytest.mark.parametrize("squared", [False, True])
def test_the_gradient_is_that_of_the_loop(mining: Mining, squared: bool) -> None:
    x = BATCH.x.clone().requires_grad_()
    batch, distance = Batch(x, BATCH.y), cast("Any", "squared" if squared else "euclidean")
    objective = Objective(same, partial(triplet, mining=mining, distance=distance))
    (expected,) = torch.autograd.grad(loop(batch, mining, squared=squared), x)
    torch.testing.assert_close(torch.autograd.grad(objective(batch), x)[0], expected, rtol=1e-3, atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="class number for each"):
        triplet(same, Batch(BATCH.x, BATCH.x))
    with pytest.raises(ConfigError, match=r"\[25, D\]"):
        triplet(same, Batch(BATCH.x[:, :, None], BATCH.y))
    with pytest.raises(ConfigError, match=r"loss.margin=0"):
        triplet(same, BATCH, margin=0.0)
