"""AlexNet, GoogLeNet and residual networks: published counts, the papers' shapes, values against plain functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.execution.flops import count_flops
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.mse import mse
from dlrun.models.alexnet import AlexNet
from dlrun.models.googlenet import GoogLeNet
from dlrun.models.resnet import cifar_resnet, resnet
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.sgd import SGD
from dlrun.types import Batch
from tests.facts import says

IMAGENET, CIFAR = (3, 224, 224), (3, 32, 32)

LARGE: Mapping[str, tuple[Callable[[], nn.Module], int, float]] = {
    # parameters and 10⁹ multiplications and additions of a picture, as published: the papers, torchvision and Caffe
    "alexnet": (lambda: AlexNet(IMAGENET, 1000), 60_965_224, 0.72),
    "alexnet in one piece": (lambda: AlexNet(IMAGENET, 1000, towers=1), 61_100_840, 0.71),
    "googlenet": (lambda: GoogLeNet(IMAGENET, 1000, auxiliary_weight=0.0), 6_998_552, 1.58),
    "googlenet with heads": (lambda: GoogLeNet(IMAGENET, 1000), 13_378_280, 1.58),
    "googlenet of torchvision": (
        lambda: GoogLeNet(IMAGENET, 1000, batch_norm=True, auxiliary_weight=0.0),
        6_624_904,
        1.50,
    ),
    "resnet50 of the paper": (lambda: resnet(IMAGENET, 1000, depth=50, strided=1), 25_557_032, 3.86),
}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def shapes(model: nn.Module, x: Tensor) -> dict[str, tuple[int, ...]]:
    """The shapes of all modules' outputs, without the batch axis."""
    found: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, inputs, output: found.setdefault(name, tuple(output.shape[1:])) and None

    for name, module in model.named_modules():
        if name:
            module.register_forward_hook(note(name))
    getattr(model, "all_outputs", model)(x)
    return found


def gmac(model: nn.Module, shape: tuple[int, ...]) -> float:
    """10⁹ multiplications and additions of a picture's forward pass."""
    # of frozen weights the forward pass alone is counted
    objective = Objective(model.eval().requires_grad_(False), lambda model, batch: model(batch.x).sum())
    return count_flops(objective, Batch(torch.zeros(1, *shape), torch.zeros(1))) / 2e9


@pytest.mark.parametrize(("make", "parameters", "cost"), LARGE.values(), ids=LARGE)
def test_parameters_and_operations_are_the_published(
    make: Callable[[], nn.Module], parameters: int, cost: float
) -> None:
    with torch.device("meta"):
        model = make()
        assert count(model) == parameters
        assert gmac(model, IMAGENET) == pytest.approx(cost, abs=0.006)


@pytest.mark.parametrize(
    # 0.27, 0.46, 0.66, 0.85 and 1.7 million in table 6 of the paper
    ("depth", "parameters"),
    [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)],
)
def test_residual_networks_for_cifar_are_as_large_as_published(depth: int, parameters: int) -> None:
    with torch.device("meta"):
        model = cifar_resnet(CIFAR, 10, depth=depth)
        found = shapes(model, torch.zeros(2, *CIFAR))
    assert count(model) == parameters
    assert len([m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]) == depth
    assert [found[f"layer{i}"] for i in (1, 2, 3)] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


@pytest.mark.parametrize(
    ("depth", "parameters", "cost"),
    [
        (18, 11_689_512, 1.81),
        (34, 21_797_672, 3.66),
        (50, 25_557_032, 4.09),
        (101, 44_549_160, 7.80),
        (152, 60_192_808, 11.51),
    ],
)
def test_residual_networks_are_the_published(depth: Any, parameters: int, cost: float) -> None:
    with torch.device("meta"):
        model = resnet(IMAGENET, 1000, depth=depth)
        found = shapes(model, torch.zeros(2, *IMAGENET))
        assert count(model) == parameters
        assert gmac(model, IMAGENET) == pytest.approx(cost, abs=0.006)
    wider = 1 if depth < 50 else 4
    assert (found["conv1"], found["maxpool"]) == ((64, 112, 112), (64, 56, 56))
    for i in range(4):
        assert found[f"layer{i + 1}"] == (64 * wider << i, 56 >> i, 56 >> i)
    projections = sum(".downsample.0" in name for name, _ in model.named_modules())
    assert len([m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]) == depth + projections


@pytest.mark.parametrize(("depth", "wider"), [(18, 1), (50, 4)])
def test_the_stem_for_small_pictures_keeps_their_sides(depth: Any, wider: int) -> None:
    with torch.device("meta"):
        found = shapes(resnet(CIFAR, 10, depth=depth), torch.zeros(2, *CIFAR))
    assert found["conv1"] == found["maxpool"] == (64, 32, 32)
    for i in range(4):
        assert found[f"layer{i + 1}"] == (64 * wider << i, 32 >> i, 32 >> i)


def test_the_stages_of_alexnet_are_the_papers() -> None:
    with torch.device("meta"):
        large, small = AlexNet(IMAGENET, 1000), AlexNet(CIFAR, 10)
        found, cifar = shapes(large, torch.zeros(2, *IMAGENET)), shapes(small, torch.zeros(2, *CIFAR))
    stages = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    sides = [(96, 55, 55), (256, 27, 27), (384, 13, 13), (384, 13, 13), (256, 13, 13), (4096,), (4096,), (1000,)]
    assert [found[name] for name in stages] == sides
    # each kernel of the second, fourth and fifth layer sees one half of the maps: 5×5×48, 3×3×192, 3×3×192
    kernels = [tuple(getattr(large, f"conv{i}").weight.shape[1:]) for i in range(1, 6)]
    assert kernels == [(3, 11, 11), (48, 5, 5), (256, 3, 3), (192, 3, 3), (192, 3, 3)]
    assert [cifar[f"conv{i}"][1] for i in range(1, 6)] == [32, 15, 7, 7, 7]


def test_the_stages_of_googlenet_are_the_papers() -> None:
    with torch.device("meta"):
        found = shapes(GoogLeNet(IMAGENET, 1000), torch.zeros(2, *IMAGENET))
        small = shapes(GoogLeNet(CIFAR, 10), torch.zeros(2, *CIFAR))
    stages = {"conv1": (64, 112), "maxpool1": (64, 56), "conv3": (192, 56), "maxpool2": (192, 28)}
    stages |= {"inception3a": (256, 28), "inception3b": (480, 28), "maxpool3": (480, 14), "inception4a": (512, 14)}
    stages |= {"inception4b": (512, 14), "inception4c": (512, 14), "inception4d": (528, 14), "inception4e": (832, 14)}
    stages |= {"maxpool4": (832, 7), "inception5a": (832, 7), "inception5b": (1024, 7)}
    assert {name: found[name] for name in stages} == {name: (c, s, s) for name, (c, s) in stages.items()}
    assert found["aux1.conv"] == found["aux2.conv"] == (128, 4, 4)
    assert found["aux1.fc2"] == found["aux2.fc2"] == found["fc"] == (1000,)
    assert [small[name][1] for name in ("conv1", "inception3a", "inception4a", "inception5a")] == [32, 16, 8, 4]


def normed(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    names = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{name}.{each}"] for each in names))


def by_functions(state: Mapping[str, Tensor], x: Tensor, *, convolutions: int, strided: int) -> Tensor:
    """A residual network for small pictures from its weights alone.

    A block has so many `convolutions`; the number `strided` has its stride.
    """
    x = F.relu(normed(state, "bn1", F.conv2d(x, state["conv1.weight"], padding=1)))
    blocks = list(dict.fromkeys(".".join(name.split(".")[:2]) for name in state if name.startswith("layer")))
    for block in blocks:
        shortcut, inner = x, x
        stride = 2 if block.endswith(".0") and not block.startswith("layer1") else 1
        for i in range(1, convolutions + 1):
            weight = state[f"{block}.conv{i}.weight"]
            own = stride if strided == i else 1
            inner = normed(state, f"{block}.bn{i}", F.conv2d(inner, weight, stride=own, padding=weight.shape[-1] // 2))
            inner = F.relu(inner) if i < convolutions else inner
        if f"{block}.downsample.0.weight" in state:
            projected = F.conv2d(x, state[f"{block}.downsample.0.weight"], stride=stride)
            shortcut = normed(state, f"{block}.downsample.1", projected)
        elif stride == 2:
            shortcut = torch.cat([x[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])], 1)
        x = F.relu(inner + shortcut)
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize(
    # the forward passes of resnet18 to 152 equal torchvision's 0.28 bit for bit, in training and in evaluation
    ("make", "convolutions", "strided"),
    [
        (lambda: resnet(CIFAR, 10, depth=18, width=4), 2, 1),
        (lambda: resnet(CIFAR, 10, depth=50, width=4), 3, 2),
        (lambda: resnet(CIFAR, 10, depth=50, width=4, strided=1), 3, 1),
        (lambda: cifar_resnet(CIFAR, 10, depth=20, width=4), 2, 1),
    ],
    ids=["projections", "bottlenecks", "of the paper", "padded"],
)
def test_a_residual_network_is_its_functions(make: Callable[[], nn.Module], convolutions: int, strided: int) -> None:
    torch.manual_seed(0)
    model, x = make(), normal(4, *CIFAR)
    model(x)  # running means and variances of their own
    model.eval()
    with torch.no_grad():
        expected = by_functions(model.state_dict(), x, convolutions=convolutions, strided=strided)
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [18, 50])
def test_blocks_whose_last_norm_begins_at_zero_begin_as_the_identity(depth: Any) -> None:
    model, x = resnet(CIFAR, 10, depth=depth, width=4, zero_init=True).eval(), normal(2, 16 if depth == 50 else 4, 5, 5)
    assert torch.equal(model.layer1[1](x.relu()), x.relu())  # type: ignore[index, operator]


def test_alexnet_is_two_towers_with_the_papers_normalisation() -> None:
    torch.manual_seed(0)
    model, x = AlexNet(CIFAR, 10, hidden=8, dropout=0.0), normal(2, *CIFAR)
    with torch.no_grad():
        first = F.relu(model.conv1(x)).numpy()
        squares = np.pad(first**2, ((0, 0), (2, 2), (0, 0), (0, 0)))
        near = sum(squares[:, i : i + first.shape[1]] for i in range(5))
        normalised = torch.from_numpy(first / (2 + 1e-4 * near) ** 0.75).float()
        np.testing.assert_allclose(model.norm(torch.from_numpy(first)).numpy(), normalised.numpy(), rtol=1e-5)
        maps = F.max_pool2d(normalised, 3, 2)
        weight, bias = model.conv2.weight, model.conv2.bias
        assert bias is not None
        halves = [F.conv2d(maps[:, :48], weight[:128], bias[:128], padding=2)]
        halves += [F.conv2d(maps[:, 48:], weight[128:], bias[128:], padding=2)]
        torch.testing.assert_close(model.conv2(maps), torch.cat(halves, 1), rtol=1e-4, atol=1e-5)


def test_alexnet_begins_as_in_the_paper() -> None:
    model = AlexNet((3, 64, 64), 10, stem="imagenet", hidden=64)
    assert float(model.conv3.weight.detach().std()) == pytest.approx(0.01, rel=0.01)
    biases = {name: float(p.detach().mean()) for name, p in model.named_parameters() if name.endswith("bias")}
    ones = ("conv2", "conv4", "conv5", "fc6", "fc7")
    assert biases == {f"{name}.bias": float(name in ones) for name, _ in model.named_children() if "c" in name}


def head_losses(model: GoogLeNet, batch: Batch, smoothing: float = 0.0) -> list[Tensor]:
    return [F.cross_entropy(o, batch.y, label_smoothing=smoothing) for o in model.all_outputs(batch.x)]


@pytest.fixture(scope="module")
def googlenet() -> GoogLeNet:
    torch.manual_seed(0)
    model = GoogLeNet(CIFAR, 10, dropout=0.0)
    for name in ("aux1", "aux2"):
        model.get_submodule(name).dropout = nn.Identity()
    return model


BATCH = Batch(normal(3, *CIFAR), torch.tensor([1, 2, 7]))


def test_auxiliary_heads_have_their_share_of_the_loss_in_training_alone(googlenet: GoogLeNet) -> None:
    loss = cross_entropy(googlenet.train(), BATCH, label_smoothing=0.1)
    main, first, second = head_losses(googlenet, BATCH, 0.1)
    torch.testing.assert_close(loss, main + 0.3 * (first + second))
    assert googlenet.forward.__self__ is googlenet  # the model is left as it was
    gradients = torch.autograd.grad(loss, list(googlenet.parameters()))
    assert all(g.abs().sum() > 0 for g in gradients)
    torch.testing.assert_close(cross_entropy(googlenet.eval(), BATCH, label_smoothing=0.1), main)
    with torch.no_grad():
        assert cross_entropy(googlenet.train(), BATCH).shape == (3,)
        torch.testing.assert_close(cross_entropy(googlenet, BATCH).mean(), head_losses(googlenet, BATCH)[0])


def test_auxiliary_heads_of_a_regression(googlenet: GoogLeNet) -> None:
    batch = Batch(BATCH.x, normal(3, 10))
    main, first, second = (F.mse_loss(o, batch.y) for o in googlenet.train().all_outputs(batch.x))
    torch.testing.assert_close(mse(googlenet, batch), main + 0.3 * (first + second))


def test_a_loss_of_ones_own_gets_the_main_outputs(googlenet: GoogLeNet) -> None:
    torch.testing.assert_close(googlenet.train()(BATCH.x), googlenet.all_outputs(BATCH.x)[0])
    objective = Objective(googlenet, lambda model, batch: F.cross_entropy(model(batch.x), batch.y))
    torch.testing.assert_close(objective(BATCH), head_losses(googlenet, BATCH)[0])


def test_a_model_without_heads_has_none() -> None:
    model = GoogLeNet(CIFAR, 10, auxiliary_weight=0.0, dropout=0.0)
    assert not any(name.startswith("aux") for name, _ in model.named_parameters())
    assert len(model.all_outputs(BATCH.x)) == 1
    torch.testing.assert_close(cross_entropy(model, BATCH), head_losses(model, BATCH)[0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: AlexNet(CIFAR, 10, hidden=32),
        lambda: AlexNet(CIFAR, 10, towers=1, hidden=32),
        lambda: GoogLeNet(CIFAR, 10),
        lambda: GoogLeNet(CIFAR, 10, batch_norm=True),
        *(lambda depth=depth: resnet(CIFAR, 10, depth=depth, width=4) for depth in (18, 34, 50, 101, 152)),
        *(lambda depth=depth: cifar_resnet(CIFAR, 10, depth=depth, width=4) for depth in (20, 110)),
    ],
)
def test_two_steps_lower_the_loss_of_a_batch(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    objective = Objective(make(), cross_entropy)
    batch = Batch(normal(8, *CIFAR), torch.arange(8))
    before = [p.detach().clone() for p in objective.params]
    optimizer = Descent(SGD(lr=0.01))
    optimizer.init(objective)
    # dropout's masks the same at each step
    losses = [torch.manual_seed(0) and optimizer.step(objective, batch, 0.01).loss for _ in range(3)]
    assert losses[2] < losses[0]
    assert all(not torch.equal(p, b) for p, b in zip(objective.params, before, strict=True))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: resnet((64,), 10, depth=18), ["pictures [channels, height, width]", "[64]", "dataset=cifar10"]),
        (lambda: AlexNet((3, 14, 32), 10), ["at least 15×15", "[3, 14, 32]"]),
        (lambda: AlexNet(CIFAR, 10, stem="imagenet"), ["at least 63×63", "model.stem=cifar"]),
        (lambda: GoogLeNet((3, 19, 19), 10), ["at least 20×20"]),
        (lambda: GoogLeNet((3, 78, 78), 10), ["at least 79×79", "model.stem=cifar"]),
        (lambda: cifar_resnet(CIFAR, 10, depth=18), ["6n + 2", "model.depth=20", "model=resnet18"]),
        (lambda: cifar_resnet(CIFAR, 10, depth=2), ["6n + 2"]),
    ],
)
def test_inputs_that_do_not_fit_are_refused(make: Callable[[], nn.Module], words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        make()
    says(str(refused.value), *words)


@pytest.mark.parametrize("smallest", [(AlexNet, 15), (GoogLeNet, 20)], ids=lambda pair: pair[0].__name__)
def test_the_smallest_pictures_pass(smallest: tuple[type[nn.Module], int]) -> None:
    cls, side = smallest
    with torch.device("meta"):
        assert cls((1, side, side), 4)(torch.zeros(2, 1, side, side)).shape == (2, 4)
