"""The reversible network: its inputs follow from its outputs, its gradients are those of the plain network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dlrun.engine.forward.checkpointing import apply
from dlrun.errors import ConfigError
from dlrun.models.revnet import RevNet
from dlrun.storage.lookup import all_runs
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
SHAPES = {"vectors": (12,), "images": (2, 6, 6)}


def make(shape: tuple[int, ...], dtype: torch.dtype, *, depth: int, activation: str = "gelu") -> tuple[RevNet, RevNet]:
    """A reversible network and the plain one, with the same weights."""
    models = []
    for reversible in (True, False):
        torch.manual_seed(0)
        models.append(RevNet(shape, 3, depth=depth, width=16, activation=activation, reversible=reversible).to(dtype))  # type: ignore[arg-type]
    return models[0], models[1]


def differentiate(model: nn.Module, x: Tensor) -> Tensor:
    """All gradients, as one vector."""
    loss = nn.functional.cross_entropy(model(x), torch.arange(len(x)) % 3)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*model.parameters()])])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    ("dtype", "depth", "activation", "within"),
    [
        (torch.float64, 64, "relu", 1e-10),
        (torch.float32, 16, "gelu", 1e-5),
        (torch.float32, 64, "gelu", 1e-4),
    ],
)
def test_its_gradients_are_those_of_the_plain_network(
    shape: tuple[int, ...], dtype: torch.dtype, depth: int, activation: str, within: float
) -> None:
    reversible, plain = make(shape, dtype, depth=depth, activation=activation)
    x = torch.randn(8, *shape, dtype=dtype)
    assert torch.equal(reversible(x), plain(x))
    one, other = differentiate(reversible, x), differentiate(plain, x)
    assert float((one - other).norm() / other.norm()) < within


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_its_gradients_are_those_of_finite_differences(shape: tuple[int, ...]) -> None:
    reversible, _ = make(shape, torch.float64, depth=3)
    x, step = torch.randn(3, *shape, dtype=torch.float64), 1e-5
    slope = differentiate(reversible, x)
    directions = [torch.randn_like(p) for p in reversible.parameters()]

    def moved(by: float) -> float:
        with torch.no_grad():
            for p, d in zip(reversible.parameters(), directions, strict=True):
                p.add_(d, alpha=by)
            loss = float(nn.functional.cross_entropy(reversible(x), torch.arange(3)))
            for p, d in zip(reversible.parameters(), directions, strict=True):
                p.sub_(d, alpha=by)
        return loss

    along = float(slope @ torch.cat([d.flatten() for d in directions]))
    assert along == pytest.approx((moved(step) - moved(-step)) / (2 * step), rel=1e-5)
    torch.autograd.gradcheck(reversible, (x.requires_grad_(),))


def test_half_precision_and_frozen_weights_have_the_plain_gradients_too() -> None:
    reversible, plain = make((2, 6, 6), torch.float32, depth=6)
    x = torch.randn(8, 2, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        one, other = (differentiate(model, x) for model in (reversible, plain))
    assert float((one - other).norm() / other.norm()) < 0.02  # of bfloat16, which has 8 bits
    for model in (reversible, plain):
        model.blocks[2].f.requires_grad_(False)
        model.stem.requires_grad_(False)
    found = []
    for model in (reversible, plain):
        params = [p for p in model.parameters() if p.requires_grad]
        found.append(torch.autograd.grad(model(x).square().sum(), params))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*found, strict=True))


def test_weights_that_change_between_the_passes_are_no_silent_error() -> None:
    reversible, _ = make((4,), torch.float32, depth=2)
    loss = reversible(torch.randn(3, 4)).sum()
    with torch.no_grad():
        reversible.blocks[0].f[2].weight.mul_(2)  # type: ignore[union-attr, index, operator]
    with pytest.raises(RuntimeError, match="reversible=false"):
        loss.backward()


def test_sizes_out_of_range_are_refused() -> None:
    for sizes in ({"depth": 0}, {"width": 7}):
        with pytest.raises(ConfigError) as refused:
            RevNet((4,), 2, **sizes)  # type: ignore[arg-type]
        says(str(refused.value), "model.width=64")
    with pytest.raises(ConfigError) as refused:
        apply(RevNet((4,), 2), True)
    says(str(refused.value), "model.reversible=false")


RUN = ("dataset=moons", "model=revnet", "model.depth=4", "model.width=16", "trainer.steps=30", "trainer.figures=false")


def test_a_run_learns_and_resumes_exactly_and_is_not_stacked(call: Call, verify_resume: Call) -> None:
    done = verify_resume(*RUN)
    assert done.code == 0, done.out + done.err
    swept = call("train", "-m", *RUN, "seed=0,1", "tracking.enabled=false", "hydra/launcher=batched")
    assert swept.code == 0, swept.err
    says(swept.out + swept.err, "RevNet computes activations again")


def test_checkpointing_it_is_for_its_plain_form(call: Call) -> None:
    given = (*RUN, "tracking.enabled=false", "trainer.activation_checkpointing=sqrt")
    refuses(call("train", *given), "trainer.activation_checkpointing=sqrt", "model.reversible=false")
    assert call("train", *given, "model.reversible=false").code == 0
    assert call("train", *RUN, "tracking.enabled=false", "model.reversible=false").code == 0
    one, other = all_runs()[-2:]
    assert one.summary().metrics == other.summary().metrics
