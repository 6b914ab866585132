"""Airbench and its recipe against the published one, which sums losses and gives the head a rate of its own."""

from __future__ import annotations

from itertools import pairwise

import torch
import yaml
from torch import Tensor
from torch.nn import functional

from dlrun.config import instantiate
from dlrun.config.paths import package_folder
from dlrun.engine.objective import Objective
from dlrun.models.airbench import HEAD, Airbench
from dlrun.models.whitening import Whitening
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.muon import COEFFICIENTS
from dlrun.types import Batch

N, STEPS = 12, 4


def images(n: int = N) -> Batch:
    draw = torch.Generator().manual_seed(1)
    return Batch(torch.randn(n, 3, 32, 32, generator=draw), torch.randint(10, (n,), generator=draw))


def test_sizes() -> None:
    model = Airbench((3, 32, 32), 10)
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # biases of the whitening; kernels; biases of the norms; the outputs' matrix
    widths = [24, 64, 256, 256]
    kernels = sum(9 * (a * b + b * b) for a, b in pairwise(widths))
    assert learned == 24 + kernels + 2 * sum(widths[1:]) + 10 * 256


def test_the_filters_whiten_the_patches() -> None:
    x = images(40).x + 0.5 * images(40).x.roll(1, 3)
    layer = Whitening(3)
    layer.init_from_inputs(x)
    patches = functional.unfold(x, 2).transpose(1, 2).flatten(0, 1).double()
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    expected = patches @ vectors / (values + layer.eps).sqrt()
    found = functional.conv2d(x, layer.weight).permute(0, 2, 3, 1).flatten(0, 2)[:, :12].double()
    # an eigenvector's sign is free
    torch.testing.assert_close(found.abs(), expected.abs(), rtol=1e-3, atol=1e-3)
    assert not layer.weight.requires_grad and layer.bias is not None and layer.bias.requires_grad


def published(model: Airbench, batch: Batch) -> Tensor:
    """The outputs after the published steps: three rates, the sum of the losses, kernels scaled to √rows."""
    model.load_state_dict(model.state_dict() | {"head.weight": model.head.weight.detach() * HEAD})
    model.factor = 1 / model.head.in_features
    kernels = [p for p in model.groups.parameters() if p.ndim == 4]
    biases = [model.whitening.bias, *(p for p in model.groups.parameters() if p.ndim == 1 and p.requires_grad)]
    decay = 2e-6 * 2000
    sgd = torch.optim.SGD(
        [
            {"params": biases, "lr": 0.053, "weight_decay": decay / 0.053},
            {"params": [model.head.weight], "lr": 0.67, "weight_decay": decay / 0.67},
        ],
        momentum=0.85,
        nesterov=True,
    )
    velocity = [torch.zeros_like(p) for p in kernels]
    rates = [group["lr"] for group in sgd.param_groups]

    def step(at: int) -> None:
        outputs = model(batch.x)
        # the mean of this batch, as a sum over 2000
        loss = functional.cross_entropy(outputs, batch.y, label_smoothing=0.2) * 2000
        sgd.zero_grad()
        loss.backward()
        for group, rate in zip(sgd.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - at / STEPS)
        with torch.no_grad():
            for p, v in zip(kernels, velocity, strict=True):
                v.mul_(0.6).add_(p.grad)
                p.mul_(len(p) ** 0.5 / p.norm())
                p.sub_(0.24 * (1 - at / STEPS) * polar((p.grad + 0.6 * v).flatten(1)).view_as(p))
        sgd.step()

    for at in range(STEPS):
        step(at)
    outputs: Tensor = model(batch.x)
    return outputs


def polar(matrix: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    u, s, vt = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(3):
        s = a * s + b * s**3 + c * s**5
    return (u * s @ vt).float()


def test_the_recipe_takes_the_published_steps() -> None:
    recipe = yaml.safe_load((package_folder() / "experiment" / "cifar10_fast.yaml").read_text())
    torch.manual_seed(0)
    ours, theirs, batch = (
        Airbench((3, 32, 32), 10, widths=(8, 12, 16)),
        Airbench((3, 32, 32), 10, widths=(8, 12, 16)),
        images(),
    )
    ours.init_from_inputs(batch.x)
    theirs.load_state_dict(ours.state_dict())
    muon = yaml.safe_load((package_folder() / "optimizer" / "muon.yaml").read_text()) | recipe["optimizer"]
    optimizer = Descent(instantiate.make(muon))
    objective = Objective(
        ours, instantiate.partial({"_target_": "dlrun.losses.cross_entropy.cross_entropy", **recipe["loss"]})
    )
    optimizer.init(objective)
    for at in range(STEPS):
        optimizer.step(objective, batch, optimizer.lr * (1 - at / STEPS))
    expected = published(theirs, batch)
    torch.testing.assert_close(ours(batch.x), expected, rtol=2e-3, atol=2e-3)
