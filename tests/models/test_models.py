"""The models: shapes, parameters counted by hand, values against numpy."""

from __future__ import annotations

from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from dlrun.config import instantiate
from dlrun.errors import ConfigError
from dlrun.models.convnet import ConvNet
from dlrun.models.lenet5 import LeNet5
from dlrun.models.linear import Linear
from dlrun.models.mlp import MLP
from dlrun.models.polynomial import Polynomial
from tests.facts import says

IMAGE = (1, 28, 28)
REQUIRED = Parameter.empty
MENU = sorted((Path(__file__).parents[2] / "conf" / "model").glob("*.yaml"))


def of_text(file: Path) -> bool:
    """Whether a choice is a model of text; test_language_models.py has their tests."""
    return "vocabulary" in signature(instantiate.resolve(yaml.safe_load(file.read_text())["_target_"])).parameters


def of_density(file: Path) -> bool:
    """Whether a choice is a density; test_densities.py has their tests."""
    return hasattr(instantiate.resolve(yaml.safe_load(file.read_text())["_target_"]), "log_prob")


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("file", [f for f in MENU if not (of_text(f) or of_density(f))], ids=lambda f: f.stem)
def test_every_choice_is_valid_and_its_yaml_gives_the_defaults(file: Path) -> None:
    config: dict[str, Any] = yaml.safe_load(file.read_text())
    shape = (1,) if file.stem == "polynomial" else IMAGE
    target = instantiate.check_part(config, where="model", runtime=("input_shape", "outputs"))
    parameters = signature(target).parameters
    # what tells the members of a family apart, as a depth, has no default
    own = {name: value for name, value in config.items() if name in parameters and parameters[name].default is REQUIRED}
    if "depth" in own:  # residual networks of all depths are the same but for the number of their parts
        assert config["width"] == parameters["width"].default
        own["width"] = config["width"] = 2
    model = instantiate.make(config, input_shape=shape, outputs=10, classes=10, vocabulary=None)
    plain = target(shape, 10, **own)
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in plain.named_parameters()}
    x = normal(3, *shape)
    model.load_state_dict(plain.state_dict())
    assert torch.equal(model.eval()(x), plain.eval()(x))
    assert model(x).shape == (3, 10)
    outputs = torch.stack(model.all_outputs(x) if hasattr(model, "all_outputs") else (model(x),))
    gradients = torch.autograd.grad(outputs.square().sum(), [p for p in model.parameters() if p.requires_grad])
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (Linear(IMAGE, 10), 785 * 10),
        (MLP(IMAGE, 10, width=64), 785 * 64 + 65 * 10),
        (MLP(IMAGE, 10, hidden=[30, 20]), 785 * 30 + 31 * 20 + 21 * 10),
        (MLP((2,), 2, width=16, depth=3), 3 * 16 + 2 * 17 * 16 + 17 * 2),
        (MLP((2,), 2, depth=0), 3 * 2),
        (Polynomial((1,), 1, degree=9), 10),
        (ConvNet(IMAGE, 10), 832 + 51264 + 51400 + 2010),
        (ConvNet((3, 32, 32), 10), 2432 + 51264 + (64 * 2 * 2 + 1) * 200 + 2010),
        (LeNet5(IMAGE, 10), 156 + 2416 + 48120 + 10164 + 850),
        (LeNet5((3, 32, 32), 10), 456 + 2416 + 48120 + 10164 + 850),
    ],
)
def test_parameters_by_hand(model: nn.Module, parameters: int) -> None:
    assert count(model) == parameters


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (LeNet5((1, 8, 8), 10), (1, 8, 8)),
        (LeNet5((3, 40, 36), 10), (3, 40, 36)),
        (ConvNet((1, 22, 40), 10), (1, 22, 40)),
        (ConvNet((3, 64, 64), 10, channels=(4, 6), width=7), (3, 64, 64)),
    ],
)
def test_other_image_sizes_pass(model: nn.Module, shape: tuple[int, ...]) -> None:
    assert model(torch.rand(2, *shape)).shape == (2, 10)


def test_linear_is_features_times_coefficients() -> None:
    model = Linear((1, 3, 2), 4)
    torch.nn.init.normal_(model.coefficients)
    x = normal(5, 1, 3, 2)
    weights = model.coefficients.detach().numpy()
    expected = x.numpy().reshape(5, 6) @ weights[:-1] + weights[-1]
    np.testing.assert_allclose(model(x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        (model.features(x) @ model.coefficients).detach().numpy(), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_polynomial_is_numpys(dtype: torch.dtype) -> None:
    model = Polynomial((1,), 1, degree=7)
    torch.nn.init.normal_(model.coefficients)
    x = torch.linspace(-1, 1, 21, dtype=dtype)[:, None]
    features = model.features(x)
    assert features.dtype == torch.float64
    assert model(x).dtype == dtype
    np.testing.assert_allclose(features.numpy(), np.vander(x[:, 0].numpy(), 8, increasing=True), rtol=1e-6, atol=1e-12)
    expected = np.polynomial.polynomial.polyval(x[:, 0].double().numpy(), model.coefficients[:, 0].double().tolist())
    np.testing.assert_allclose(model(x)[:, 0].double().detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_features_of_a_wider_type_than_the_model_s() -> None:
    x = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    assert Polynomial((1,), 1, degree=3).features(x).dtype == torch.float64
    assert Linear((1,), 1).features(x).dtype == torch.float64


def test_mlp_is_numpys() -> None:
    model = MLP((3,), 2, hidden=[5, 4], activation="tanh")
    x = normal(6, 3)
    h = x.double().numpy()
    linears = [m for m in model.layers if isinstance(m, nn.Linear)]
    for i, layer in enumerate(linears):
        h = h @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        h = np.tanh(h) if i < 2 else h
    np.testing.assert_allclose(model(x).detach().numpy(), h, rtol=1e-4, atol=1e-6)


def test_initialisation_follows_the_seed_and_the_scale() -> None:
    torch.manual_seed(3)
    one = MLP((4,), 2)
    torch.manual_seed(3)
    two = MLP((4,), 2, init_scale=0.5)
    assert all(torch.equal(0.5 * a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_dropout_acts_in_training_only() -> None:
    model, x = MLP((4,), 2, dropout=0.5), normal(3, 4)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_convnet_is_the_slides_program() -> None:
    model, x = ConvNet(IMAGE, 10), normal(4, *IMAGE)
    h = F.relu(F.max_pool2d(F.conv2d(x, model.conv1.weight, model.conv1.bias), kernel_size=3))
    h = F.relu(F.max_pool2d(F.conv2d(h, model.conv2.weight, model.conv2.bias), kernel_size=2))
    h = h.view(-1, 256)
    h = F.relu(F.linear(h, model.fc1.weight, model.fc1.bias))
    assert torch.equal(model(x), F.linear(h, model.fc2.weight, model.fc2.bias))


def test_lenet5_pads_the_image_in_its_middle() -> None:
    small, large, x = LeNet5(IMAGE, 10), LeNet5((1, 32, 32), 10), normal(2, *IMAGE)
    large.load_state_dict(small.state_dict())
    assert torch.equal(small(x), large(F.pad(x, (2, 2, 2, 2))))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: ConvNet((1, 8, 8), 10), ["22×22", "[1, 8, 8]", "model=mlp"]),
        (lambda: ConvNet((2,), 2), ["images", "[2]"]),
        (lambda: LeNet5((64,), 10), ["images", "[64]"]),
        (lambda: Polynomial((2,), 1), ["one variable", "dataset=polynomial"]),
        (lambda: Polynomial((1,), 1, degree=-1), ["model.degree=-1"]),
        (lambda: MLP((2,), 2, hidden=[0]), ["[0]", "model.hidden=[128,64]"]),
        (lambda: MLP((2,), 2, depth=-1), ["depth -1"]),
        (lambda: MLP((2,), 2, dropout=1.5), ["model.dropout=1.5"]),
    ],
)
def test_what_cannot_be_built_says_why(build: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        build()
    says(str(error.value), *words)
