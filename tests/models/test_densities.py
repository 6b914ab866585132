"""Densities: they integrate to one, equal those of other libraries, and their samples have their moments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from dlrun.config import instantiate
from dlrun.errors import ConfigError
from dlrun.models.gaussian_mixture import GaussianMixture, triangular
from dlrun.models.realnvp import RealNVP


def random_mixture(size: int = 2, components: int = 3) -> GaussianMixture:
    g = torch.Generator().manual_seed(4)
    model = GaussianMixture((size,), components=components)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
        model.precisions.mul_(0.5)
    return model


def random_network(size: int = 2) -> RealNVP:
    g = torch.Generator().manual_seed(6)
    model = RealNVP((size,), couplings=4, width=8)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.35 * torch.randn(p.shape, generator=g))
    return model


def moments(model: GaussianMixture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weights, means and covariances of the components."""
    factors = triangular(model.precisions.detach().double()).numpy()
    weights = model.logits.detach().double().softmax(0).numpy()
    return weights, model.means.detach().double().numpy(), np.linalg.inv(factors.transpose(0, 2, 1) @ factors)


def integral(model: nn.Module, *, half: float = 12.0, points: int = 801) -> float:
    """The integral of a density of the plane over a square, by the trapezium rule."""
    line = torch.linspace(-half, half, points)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        values = torch.cat([model(part).exp() for part in grid.split(1 << 16)]).double().view(points, points)
    inner: Tensor = torch.trapezoid(torch.trapezoid(values, line.double()), line.double())
    return float(inner)


@pytest.mark.parametrize("make", [random_mixture, random_network])
def test_a_density_integrates_to_one(make: Callable[[], nn.Module]) -> None:
    assert integral(make()) == pytest.approx(1.0, abs=1e-3)


def test_in_half_precision_a_mixture_has_the_same_density() -> None:
    model, x = random_mixture(), 6 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    expected = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("size", [2, 5])
def test_the_network_is_undone_by_its_inverse(size: int) -> None:
    model, x = random_network(size).double(), torch.randn(30, size, dtype=torch.float64)
    z, _ = model.transform(x)
    assert not torch.allclose(z, x, atol=0.1)
    torch.testing.assert_close(model.inverse(z), x, rtol=1e-9, atol=1e-9)


def test_the_network_has_the_determinant_of_autograds_jacobian() -> None:
    model, x = random_network(3).double(), torch.randn(6, 3, dtype=torch.float64)
    _, volume = model.transform(x)
    for row, own in zip(x, volume, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda one: model.transform(one[None])[0][0], row)
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, own)


def test_the_network_is_at_first_the_standard_normal() -> None:
    x = torch.randn(9, 2)
    torch.testing.assert_close(RealNVP((2,))(x), torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1))


def test_the_samples_of_the_network_have_its_density() -> None:
    # the probability of each quadrant, of the samples and by the density on a grid
    model = random_network()
    drawn = model.sample(100_000, torch.Generator().manual_seed(0))
    line = torch.linspace(-12, 12, 801)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        mass = model(grid).exp().double() * float(line[1] - line[0]) ** 2
    for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        inside, on_grid = ((points * torch.tensor(signs) > 0).all(1) for points in (drawn, grid))
        assert float(inside.double().mean()) == pytest.approx(float(mass[on_grid].sum()), abs=0.015)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_mixture_has_the_density_of_scipys_normals(size: int) -> None:
    model = random_mixture(size).double()
    x = torch.randn(40, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = sum(
        w * multivariate_normal(mean, cov).pdf(x.numpy()).reshape(40)
        for w, mean, cov in zip(*moments(model), strict=True)
    )
    np.testing.assert_allclose(model(x).detach().exp().numpy(), expected, rtol=1e-9)


def test_one_component_is_at_first_the_standard_normal() -> None:
    x = torch.randn(9, 3)
    torch.testing.assert_close(
        GaussianMixture((3,), components=1)(x), torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1)
    )


def test_the_samples_of_a_mixture_have_its_moments() -> None:
    model, n = random_mixture(), 200_000
    drawn = model.sample(n, torch.Generator().manual_seed(0)).double().numpy()
    weights, means, covariances = moments(model)
    mean = weights @ means
    second = np.einsum("k,kij->ij", weights, covariances + means[:, :, None] * means[:, None])
    covariance = second - np.outer(mean, mean)
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * deviation.max() / n**0.5)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.03 * deviation.max() ** 2)


@pytest.mark.parametrize("name", ["gaussian_mixture", "realnvp", "autoregressive_pixels"])
def test_a_yaml_gives_the_defaults(name: str) -> None:
    config = yaml.safe_load((Path(__file__).parents[2] / "conf" / "model" / f"{name}.yaml").read_text())
    shape = (1, 8, 8) if name == "autoregressive_pixels" else (2,)
    sizes = {"input_shape": shape, "outputs": 1, "classes": None, "vocabulary": None, "levels": 2}
    made = instantiate.make(config, **sizes)
    plain = instantiate.make({"_target_": config["_target_"]}, **sizes)
    assert str(made) == str(plain)
    assert {n: p.shape for n, p in made.named_parameters()} == {n: p.shape for n, p in plain.named_parameters()}
    made.load_state_dict(plain.state_dict())
    x = torch.rand(3, *shape)
    assert torch.equal(made(x), plain(x))


def test_samples_follow_their_generator() -> None:
    model = random_mixture()
    one, same, other = (model.sample(5, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("shape", "options", "says"),
    [((1, 8, 8), {}, r"density of vectors.*\[1, 8, 8\]"), ((2,), {"components": 0}, "components=0")],
)
def test_what_a_mixture_cannot_be_is_refused(shape: tuple[int, ...], options: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        GaussianMixture(shape, **options)  # type: ignore[arg-type]


def test_what_a_network_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="model=gaussian"):
        RealNVP((1,))
    with pytest.raises(ConfigError, match="couplings=0"):
        RealNVP((2,), couplings=0)
