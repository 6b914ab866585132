"""The studies of gradients, beside closed forms and torch.optim."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dlrun.models.deep_stack import DeepStack
from dlrun.storage.results import Result
from dlrun.studies.gradients.paths import START, GradientPaths, Surface, fit_surface, read_paths, read_surface
from dlrun.studies.gradients.paths import Path as Descent
from dlrun.studies.gradients.vanishing import Factor, VanishingGradient, draw, fit_factor
from tests.conftest import Called
from tests.studies.test_studies import HELD, NOT, OPEN, made_up, trained, verdicts

THEORY = {("relu", "he"): 1.0, ("relu", "glorot"): math.sqrt(0.5), ("tanh", "normal"): 0.02 * math.sqrt(128)}
"""Of wide stacks: He et al. 2015, arXiv:1502.01852, 2.2; a tanh of small inputs is linear."""


def measured(layer: Any, init: Any, seed: int) -> dict[int, float]:
    """The norms of 8 random samples' gradients, root mean square."""
    torch.manual_seed(seed)
    model, squares = DeepStack((64,), 10, layer=layer, init=init), torch.zeros(16)
    for x in torch.randn(8, 1, 64):
        loss = nn.functional.cross_entropy(model(x), torch.tensor([seed % 10]))
        biases = [one.shift.bias for one in model.layers]  # type: ignore[union-attr]
        squares += torch.stack([grad.square().sum() for grad in torch.autograd.grad(loss, biases)])  # type: ignore[arg-type]
    return dict(enumerate((squares / 8).sqrt().tolist()))


@pytest.mark.parametrize("case", THEORY, ids="-".join)
def test_a_stack_scales_gradients_as_theory_has_it(case: tuple[str, str]) -> None:
    factor = fit_factor([measured(*case, seed) for seed in range(6)])
    assert factor is not None
    assert factor.low - 0.02 < THEORY[case] < factor.high + 0.02
    assert factor.near(THEORY[case], 0.1) is True


def test_the_interval_of_a_factor_covers_it() -> None:
    # what a layer loses, all before it lose: the logarithms are a random walk
    draw, covered = np.random.default_rng(0), 0
    for _ in range(400):
        walks = np.cumsum(0.2 + 0.15 * draw.standard_normal((8, 16)), axis=1)
        factor = fit_factor([dict(enumerate(np.exp(walk).tolist())) for walk in walks])
        assert factor is not None
        covered += factor.low < math.exp(-0.2) < factor.high
    assert 0.92 < covered / 400 < 0.98


def stacks(folder: Path, factors: Mapping[tuple[str, str], float], seeds: int = 4) -> list[Result]:
    pairs = [(case, seed) for case in factors for seed in range(seeds)]
    draw = np.random.default_rng(0)
    runs = []
    for n, ((layer, init), seed) in enumerate(pairs):
        slope = math.log(factors[layer, init]) + 0.003 * draw.standard_normal()
        curves = {f"grad_norm/layers.{k}.shift": [(1, math.exp(slope * (8 - k)))] for k in range(8)}
        runs.append(made_up(folder, n, {"model.layer": layer, "model.init": init, "seed": seed}, {}, curves))
    return runs


INITS = ("normal", "glorot", "he")
SEEN = {
    **{("tanh", init): value for init, value in zip(INITS, (0.23, 0.92, 1.03), strict=True)},
    **{("relu", init): value for init, value in zip(INITS, (0.16, 0.71, 1.0), strict=True)},
    **{(layer, init): value for layer, value in (("normalised", 1.0), ("residual", 1.07)) for init in INITS},
}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, [HELD, HELD, HELD]),
        ({("tanh", "normal"): 1.2}, [NOT, HELD, HELD]),
        ({("tanh", "normal"): 1.0}, [OPEN, HELD, HELD]),
        ({("relu", "glorot"): 0.9}, [HELD, NOT, HELD]),
        ({("residual", "he"): 1.4}, [HELD, HELD, NOT]),
        ({("residual", "he"): 1.1}, [HELD, HELD, OPEN]),
    ],
)
def test_vanishing_gradient(tmp_path: Path, changed: dict[tuple[str, str], float], expected: list[str]) -> None:
    runs = stacks(tmp_path, SEEN | changed)
    assert verdicts(VanishingGradient().claims(runs)) == expected
    assert verdicts(VanishingGradient().claims(runs[:1])) == [OPEN] * 3
    (found,) = VanishingGradient().figures(runs)
    assert len(found.figure.axes) == 3


def test_a_factor_says_what_its_interval_says() -> None:
    def near(low: float, high: float) -> bool | None:
        return Factor(1.0, low, high, 1.0, 8).near(1.0, 0.1)

    assert (near(0.95, 1.05), near(1.05, 1.15), near(1.15, 1.25)) == (True, None, False)
    assert fit_factor([{0: 1.0, 1: 0.0, 2: 1.0}] * 3) is None  # a gradient that is 0 has no logarithm
    assert len(draw({("relu", "he"): {0: {0: 1.0, 1: 2.0, 2: 4.0}}}).axes) == 1


# -- paths ------------------------------------------------------------------------------------------------------------

X = np.random.default_rng(0).random(30)
SURFACE = fit_surface(X, np.sin(3 * X))


def by_torch(make: Callable[[list[torch.Tensor]], torch.optim.Optimizer], steps: int) -> np.ndarray[Any, Any]:
    w = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    optimizer, points = make([w]), [START]
    x = torch.tensor(X)
    for _ in range(steps):
        optimizer.zero_grad()
        (w[0] + w[1] * x - torch.sin(3 * x)).square().mean().backward()
        optimizer.step()
        points.append(tuple(w.tolist()))
    return np.array(points)


def path(rate: float, momentum: float = 0.0, rule: str = "SGD", *, whole: bool = True) -> Descent:
    make = torch.optim.Adam if rule == "Adam" else lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=momentum)
    return Descent(rule, rate, momentum, whole, by_torch(lambda p: make(p, lr=rate), 60))


def test_the_surface_is_the_loss() -> None:
    points = np.random.default_rng(1).standard_normal((5, 2))
    losses = [np.square(w[0] + w[1] * X - np.sin(3 * X)).mean() for w in points]
    assert SURFACE.least + SURFACE.excess(points) == pytest.approx(losses)
    expected = by_torch(lambda p: torch.optim.SGD(p, lr=0.3), 20)
    assert SURFACE.descend(np.array(START), 0.3, 20) == pytest.approx(expected)


def test_the_claims_of_paths() -> None:
    study, bound = GradientPaths(), 2 / SURFACE.curvature
    paths = [path(rate) for rate in (0.0005, 0.2, 0.9 * bound, 1.05 * bound)]
    moving = [path(rate, 0.9) for rate in (0.2, 1.05 * bound, 1.8 * bound)]

    def found(own: list[Descent], surface: Surface | None = SURFACE) -> list[str]:
        claims = (study.stalls, study.has_a_bound, study.is_closed_form, study.momentum_has_another)
        return verdicts([claim(own, surface) for claim in claims])

    assert found([*paths, *moving]) == [HELD] * 4
    assert found([*paths, *moving], None) == [OPEN] * 4
    assert found(paths[1:3]) == [NOT, OPEN, HELD, OPEN]
    # another rate than the path is of: neither the bound nor the formula fits
    wrong = [Descent("SGD", 1.1 * bound, 0.0, True, paths[1].points), *paths[:3]]
    assert found(sorted(wrong, key=lambda p: p.rate))[1:3] == [NOT, NOT]
    names = [p.name.partition(",")[0] for p in study.pick([*paths, path(0.1, rule="Adam")], SURFACE)]
    assert names == ["gradient descent"] * 3 + ["Adam"]


def test_the_paths_come_from_the_runs(call: Callable[..., Called]) -> None:
    argv = ("+experiment=gradient_descent", "optimizer.lr=0.1")
    runs = [
        trained(call, *argv),
        trained(call, *argv, "optimizer=momentum"),
        trained(call, *argv, "trainer.batch_size=5"),
    ]
    surface, paths = read_surface(runs), read_paths(runs)
    assert surface is not None
    assert [(len(p.points), p.momentum, p.whole) for p in paths] == [
        (101, 0.0, True),
        (101, 0.9, True),
        (101, 0.0, False),
    ]
    descent = surface.descend(np.array(START), 0.1, 100)
    assert paths[0].points == pytest.approx(descent, abs=1e-5)
    assert abs(paths[2].points - descent).max() > 0.01
    (picture,) = GradientPaths().figures(runs)
    assert len(picture.figure.axes) == 3
