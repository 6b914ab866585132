"""Expectation maximisation against scikit-learn's, from the same beginning."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture as Sklearn
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dlrun.datasets.moons import moons
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError, RunError
from dlrun.losses.mse import mse
from dlrun.losses.nll import nll
from dlrun.models.gaussian_mixture import GaussianMixture, triangular
from dlrun.optimizers.em import EM
from dlrun.types import Batch

X = moons(n=300, validation_size=0, test_size=0).train.gather(torch.arange(300)).x
BATCH = Batch(X, torch.zeros(300))


def mixture(components: int = 4) -> GaussianMixture:
    torch.manual_seed(2)
    return GaussianMixture((2,), components=components)


def fit(model: GaussianMixture, steps: int, **options: float) -> list[float]:
    objective, em = Objective(model, nll), EM(**options)
    em.init(objective)
    batch = Batch(BATCH.x.to(model.means.dtype), BATCH.y)
    losses = [float(em.step(objective, batch, em.lr).loss) for _ in range(steps)]
    return [*losses, float(objective(batch).detach())]


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
@pytest.mark.parametrize("components", [1, 4])
def test_it_equals_scikit_learns_mixture(components: int, dtype: torch.dtype, rounding: float) -> None:
    model, steps = mixture(components).to(dtype), 30
    precisions = np.stack([np.eye(2)] * components)
    means, weights = model.means.detach().double().numpy(), np.full(components, 1 / components)
    other = Sklearn(
        components, tol=0, max_iter=steps, reg_covar=1e-3, weights_init=weights, means_init=means,
        precisions_init=precisions,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged
        other.fit(X.double().numpy())
    losses = fit(model, steps, reg_covar=1e-3)
    factors = triangular(model.precisions.detach().double()).numpy()
    close = {"rtol": rounding, "atol": rounding}
    np.testing.assert_allclose(model.logits.detach().double().softmax(0).numpy(), other.weights_, **close)
    np.testing.assert_allclose(model.means.detach().double().numpy(), other.means_, **close)
    np.testing.assert_allclose(factors.transpose(0, 2, 1) @ factors, other.precisions_, **close)
    assert losses[-1] == pytest.approx(-other.score(X.double().numpy()), rel=max(rounding, 1e-6) / 10)


def test_no_step_lowers_the_likelihood() -> None:
    losses = fit(mixture(6).double(), 60, reg_covar=0.0)
    assert all(after <= before + 1e-12 for before, after in pairwise(losses))
    assert losses[-1] < losses[0] - 0.5


def test_one_component_has_its_answer_after_one_step() -> None:
    model = mixture(1).double()
    losses = fit(model, 2, reg_covar=0.0)
    assert losses[1] == pytest.approx(losses[2], rel=1e-12)
    np.testing.assert_allclose(model.means.detach().numpy()[0], X.double().numpy().mean(0), atol=1e-12)


def test_its_operations_are_those_that_torch_counts() -> None:
    model, n = mixture(4).double(), len(X)
    objective = Objective(model, nll)
    with FlopCounterMode(display=False) as counter:
        EM().step(objective, Batch(X.double(), BATCH.y), 1.0)
    # which counts products alone
    assert EM().flop(objective, n) - 4 * 4 * 2**3 // 3 == counter.get_total_flops()
    assert EM().flop(Objective(nn.Linear(2, 2), nll), n) == 0


def test_what_it_cannot_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`Linear`.*model=gaussian_mixture"):
        EM().init(Objective(nn.Linear(2, 2), nll))
    with pytest.raises(ConfigError, match="loss=nll"):
        EM().init(Objective(mixture(), mse))
    frozen = mixture()
    frozen.means.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"means is frozen.*finetune\.freeze"):
        EM().init(Objective(frozen, nll))
    with pytest.raises(ConfigError, match="reg_covar"):
        EM(reg_covar=-1.0)
    with pytest.raises(RunError, match=r"reg_covar=1e-6"):
        mixture(1).maximise(torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.ones(2, 1), 0.0)


def test_a_weight_of_two_is_a_sample_twice() -> None:
    weight = torch.arange(len(X)) % 3.0
    models = mixture(3).double(), mixture(3).double()
    repeated = X.double().repeat_interleave(weight.long(), 0)
    for model, batch in zip(models, (Batch(X.double(), BATCH.y, weight), Batch(repeated, repeated)), strict=True):
        EM(reg_covar=1e-3).step(Objective(model, nll), batch, 1.0)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)
