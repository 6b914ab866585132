"""Channels last: the same numbers, another order in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlrun.engine.objective import Objective
from dlrun.engine.protocols import Optimizer
from dlrun.errors import ConfigError
from dlrun.execution import memory_format
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.models.convnet import ConvNet
from dlrun.optimizers.adam import Adam
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.lbfgs import LBFGS
from dlrun.optimizers.muon import Muon
from dlrun.optimizers.sgd import SGD
from dlrun.optimizers.torch_optimizer import adapt
from dlrun.types import Batch
from tests.conftest import Called
from tests.facts import refuses
from tests.summaries import summarise

CPU = torch.device("cpu")
SGD_01 = Descent(SGD(lr=0.1))


def batch() -> Batch:
    draw = torch.Generator().manual_seed(0)
    return Batch(torch.randn(4, 3, 22, 24, generator=draw), torch.randint(0, 5, (4,), generator=draw))


def trained(form: memory_format.Layout, make: Callable[[], Optimizer]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the losses of three steps, and the weights after them."""
    torch.manual_seed(0)
    model = ConvNet((3, 22, 24), 5, channels=(4, 6), width=8)
    memory_format.apply(model, form)
    objective, optimizer = Objective(model, cross_entropy), make()
    optimizer.init(objective)
    losses = [optimizer.step(objective, batch(), 0.01).loss for _ in range(3)]
    return losses, [p.detach() for p in model.parameters()]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Descent(SGD(lr=0.1, momentum=0.9, weight_decay=0.1)),
        lambda: Descent(Adam(lr=0.1), clip=0.5),
        lambda: Descent(Adam(lr=0.1, fused=False), accumulate=2),
        lambda: Descent(Muon(lr=0.1)),
        lambda: Descent(adapt(torch.optim.RMSprop, lr=0.1)),
        lambda: Descent(adapt(torch.optim.Adagrad, lr=0.1)),
    ],
    ids=["sgd", "adam", "adam-foreach", "muon", "rmsprop", "adagrad"],
)
def test_training_goes_as_with_contiguous_weights(make: Callable[[], Optimizer]) -> None:
    (losses, weights), (expected, theirs) = trained("channels_last", make), trained("contiguous", make)
    assert weights[2].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights, theirs, rtol=1e-4, atol=1e-4)


def test_what_auto_stands_for() -> None:
    net, dense = ConvNet((1, 28, 28), 10), nn.Linear(3, 2)

    def auto(model: nn.Module, optimizer: Optimizer = SGD_01, device: str = "cpu", precision: str = "fp32") -> str:
        return memory_format.choose("auto", model, optimizer, torch.device(device), precision)

    assert auto(net) == auto(net, device="cuda", precision="tf32") == "channels_last"
    assert {auto(dense), auto(net, LBFGS()), auto(net, device="cuda"), auto(net, device="mps")} == {"contiguous"}
    assert memory_format.choose("contiguous", net, SGD_01, CPU, "fp32") == "contiguous"


def test_lbfgs_keeps_contiguous_weights() -> None:
    with pytest.raises(ConfigError, match=r"not for LBFGS.* Type trainer\.memory_format=auto"):
        memory_format.choose("channels_last", ConvNet((1, 28, 28), 10), LBFGS(), CPU, "fp32")


def test_a_rule_of_the_users_may_take_weights_for_vectors() -> None:
    class Mine(SGD):
        def update(self, params: list[Tensor], grads: list[Tensor], lr: float) -> None:
            for p, g in zip(params, grads, strict=True):
                p.view(-1).sub_(g.view(-1), alpha=lr)

    assert not memory_format.supports(Descent(Mine(lr=0.1)))
    assert memory_format.supports(Descent(adapt(torch.optim.SGD, lr=0.1)))


USER = """
from torch import nn
class Net(nn.Module):
    def __init__(self, input_shape, outputs):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8 * 6 * 6, outputs)
    def forward(self, x):
        x = self.conv(x.view(-1, 1, 8, 8).expand(-1, 3, -1, -1))
        return self.fc(x.{})
"""


@pytest.mark.parametrize(
    ("flat", "given", "found"),
    [
        ("flatten(1)", "auto", "channels_last"),
        ("view(len(x), -1)", "auto", "contiguous"),
        ("flatten(1)", "contiguous", "contiguous"),
    ],
)
def test_a_run_says_what_was_chosen(
    flat: str, given: str, found: str, call: Callable[..., Called], here: Any, request: pytest.FixtureRequest
) -> None:
    from dlrun.storage.lookup import all_runs

    module = f"net{abs(hash((flat, given)))}"
    (here / f"{module}.py").write_text(USER.format(flat))
    (here / "conf/model").mkdir(parents=True)
    (here / "conf/model/own.yaml").write_text(f"_target_: {module}.Net\n")
    argv = ("model=own", "trainer.steps=3", "tracking.enabled=false", "trainer.figures=false")
    done = call("train", *argv, f"trainer.memory_format={given}")
    assert done.code == 0, done.err
    assert ("channels last" in done.out + done.err) == (found == "channels_last")
    if "view" in flat:
        refused = call("check", *argv, "trainer.memory_format=channels_last")
        refuses(refused, "view")
    run = all_runs()[-1]
    assert run.summary().execution["memory_format"] == found
    # a run that is gone on with computes as it did, whatever is found best by then
    if found == "channels_last":
        from dlrun.runs.reload.rebuild import rebuild

        summarise(run, execution={"device": "cpu", "memory_format": "contiguous"})
        assert rebuild(run).execution.memory_format == "contiguous"
