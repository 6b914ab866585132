"""Muon against torch's own and against singular values; which matrices it takes; resumed to the bit."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.config import instantiate
from dlrun.config.paths import package_folder
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.muon import COEFFICIENTS, Muon, orthogonalise
from dlrun.types import Batch

VOCABULARY = 11


class Net(nn.Module):
    """A small model of tokens, with all that a large one has: embeddings, a norm, matrices of two shapes, a head."""

    def __init__(self, *, tied: bool = False, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(VOCABULARY, 6)
        self.tall, self.wide = nn.Linear(6, 12), nn.Linear(12, 6)
        self.square = nn.ModuleList(nn.Linear(6, 6, bias=False) for _ in range(2))
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, VOCABULARY, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x)
        h = h + self.wide(F.gelu(self.tall(h)))
        for layer in self.square:
            h = h + layer(h)
        logits: Tensor = self.head(self.norm(h))
        return logits


def batches(n: int = 8) -> list[Batch]:
    g = torch.Generator().manual_seed(1)
    drawn = [torch.randint(VOCABULARY, (4, 6), generator=g) for _ in range(n)]
    return [Batch(tokens[:, :-1], tokens[:, 1:]) for tokens in drawn]


def rate(step: int) -> float:
    return 0.02 * (1.0 - step / 30)


def made(model: nn.Module, **options: Any) -> Descent:
    optimizer = Descent(Muon(lr=0.02, **options), clip=0.5, accumulate=3)
    optimizer.init(Objective(model, cross_entropy))
    return optimizer


def train(optimizer: Descent, model: nn.Module, data: list[Batch], first: int = 0) -> list[Tensor]:
    objective = Objective(model, cross_entropy)
    return [optimizer.step(objective, batch, rate(first + i)).loss for i, batch in enumerate(data)]


@pytest.mark.parametrize("scale", ["adamw", "original"])
@pytest.mark.parametrize("options", [{}, {"nesterov": False, "momentum": 0.8}, {"weight_decay": 0.0}], ids=str)
def test_it_is_that_of_torch_and_adamw(scale: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # torch's iterates in bfloat16, whose roundings are too coarse to compare a training by
    monkeypatch.setattr(Tensor, "bfloat16", Tensor.clone)
    ours, theirs, data = Net(), Net(), batches()
    optimizer = Descent(Muon(lr=0.02, scale=scale, precision="fp32", adam_ratio=0.5, **options))
    optimizer.init(Objective(ours, cross_entropy))
    train(optimizer, ours, data)
    reference(theirs, data, scale=scale, options={"weight_decay": 0.1} | options)
    torch.testing.assert_close(dict(ours.named_parameters()), dict(theirs.named_parameters()), rtol=2e-6, atol=2e-6)


def reference(model: Net, data: list[Batch], *, scale: str, options: dict[str, Any]) -> None:
    inner = [model.tall.weight, model.wide.weight, *model.square.parameters()]
    outer = [model.embedding.weight, model.head.weight]
    groups = [
        {"params": outer, "weight_decay": options["weight_decay"]},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    kind = "match_rms_adamw" if scale == "adamw" else "original"
    adam = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)
    muon = torch.optim.Muon(inner, adjust_lr_fn=kind, **options)
    for i, batch in enumerate(data):
        grads = torch.autograd.grad(F.cross_entropy(model(batch.x).mT, batch.y), list(model.parameters()))
        for p, g in zip(model.parameters(), grads, strict=True):
            p.grad = g
        for optimizer, factor in ((adam, 0.5), (muon, 1.0)):
            for group in optimizer.param_groups:
                group["lr"] = rate(i) * factor
            optimizer.step()


def test_in_bfloat16_it_is_torch_s_iteration_to_its_rounding() -> None:
    from torch.optim._muon import _zeropower_via_newtonschulz

    matrices = torch.randn(3, 20, 12, generator=torch.Generator().manual_seed(0))
    for matrix, found in zip(matrices, orthogonalise(matrices, dtype=torch.bfloat16), strict=True):
        expected = _zeropower_via_newtonschulz(matrix, COEFFICIENTS, 5, 1e-7)
        torch.testing.assert_close(found, expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("shape", [(3, 5, 5), (2, 4, 9), (2, 9, 4)], ids=str)
def test_singular_values_become_what_the_polynomial_makes_of_them(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b, c = COEFFICIENTS
    for matrix, found in zip(matrices.numpy(), orthogonalise(matrices).numpy(), strict=True):
        u, s, vt = np.linalg.svd(matrix, full_matrices=False)
        s = s / np.linalg.norm(s)
        for _ in range(5):
            s = a * s + b * s**3 + c * s**5
        np.testing.assert_allclose(found, u * s @ vt, rtol=1e-9, atol=1e-9)
    single = orthogonalise(matrices.float()).double()
    torch.testing.assert_close(single, orthogonalise(matrices), rtol=1e-4, atol=1e-4)
    assert (torch.linalg.svdvals(single) < 1.3).all()


def test_a_matrix_of_zeros_stays_one() -> None:
    assert torch.equal(orthogonalise(torch.zeros(1, 3, 4)), torch.zeros(1, 3, 4))


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (Net(), ["tall.weight", "wide.weight", "square.0.weight", "square.1.weight"]),
        (Net(tied=True), ["tall.weight", "wide.weight", "square.0.weight", "square.1.weight"]),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2)), ["0.weight", "2.weight"]),
        (nn.Linear(3, 2), []),
    ],
    ids=["untied", "tied", "convolution", "linear"],
)
def test_the_hidden_matrices(model: nn.Module, names: list[str]) -> None:
    objective = Objective(model, cross_entropy)
    found = [name for (name, _), hidden in zip(model.named_parameters(), objective.hidden, strict=True) if hidden]
    assert found == names


def test_a_kernel_is_the_matrix_of_its_output_channels() -> None:
    g = torch.Generator().manual_seed(0)
    kernel, grad = torch.randn(4, 3, 2, 2, generator=g), torch.randn(4, 3, 2, 2, generator=g)
    rule, expected = Muon(lr=0.1, momentum=0.0, weight_decay=0.0), kernel.clone()
    layouts = [kernel.clone(), kernel.clone().contiguous(memory_format=torch.channels_last)]
    expected -= 0.1 * 0.2 * 12**0.5 * orthogonalise(grad.flatten(1)[None])[0].view_as(grad)
    for p in layouts:
        rule.init([p], [True])
        rule.update([p], [torch.empty_like(p).copy_(grad)], 0.1)
        torch.testing.assert_close(p, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("tied", [False, True])
def test_resumed_it_goes_on_to_the_bit(tied: bool, at: int) -> None:
    data = batches(6)
    straight, stopped, resumed = Net(tied=tied), Net(tied=tied), Net(tied=tied, seed=5)
    train(made(straight), straight, data)
    before = made(stopped)
    train(before, stopped, data[:at])
    file = io.BytesIO()
    torch.save((stopped.state_dict(), before.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    resumed.load_state_dict(weights)
    after = made(resumed)
    after.load_state_dict(state)
    train(after, resumed, data[at:], first=at)
    for (name, p), q in zip(straight.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q), name


def test_a_state_of_another_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`velocity`.*Resume with the model"):
        made(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))).load_state_dict(made(Net()).state_dict())


def test_with_nothing_but_hidden_matrices_or_none_of_them() -> None:
    for hidden in ([True, True], [False, False]):
        params = [torch.ones(2, 3), torch.ones(4, 2)]
        rule = Muon(lr=0.1, weight_decay=0.0)
        rule.hidden = hidden
        rule.init(params, [True, True])
        rule.update(params, [torch.ones(2, 3), torch.ones(4, 2)], 0.1)
        rule.load_state_dict(rule.state_dict())
        assert all((p < 1).all() for p in params)


def test_it_learns() -> None:
    model, x = Net(), torch.arange(VOCABULARY)[None].repeat(3, 1)
    losses = train(made(model), model, [Batch(x, (3 * x + 1) % VOCABULARY)] * 25)
    assert losses[-1] < 0.5 * losses[0]


def test_the_yaml_gives_the_defaults() -> None:
    config = yaml.safe_load((package_folder() / "optimizer" / "muon.yaml").read_text())
    target = instantiate.check_part(config, where="optimizer")
    assert instantiate.make(config) == target(lr=config["lr"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lr": -1.0}, r"optimizer\.lr is -1\.0"),
        ({"momentum": 1.0}, "0 ≤ momentum < 1"),
        ({"steps": 0}, r"Type optimizer\.steps=5"),
        ({"adam_ratio": -1.0}, "adam_ratio"),
        ({"beta2": 1.0}, "0 ≤ beta2 < 1"),
        ({"weight_decay": -0.1}, "weight_decay"),
    ],
    ids=str,
)
def test_values_that_cannot_be_are_refused(options: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Muon(**{"lr": 0.1} | options)  # type: ignore[arg-type]
