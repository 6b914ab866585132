"""Groups of weights with settings of their own train as the parameter groups of torch.optim, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

from dlrun.config import compose
from dlrun.config.settings import FineTune
from dlrun.engine import loop
from dlrun.engine.objective import Objective
from dlrun.engine.state import State
from dlrun.errors import ConfigError
from dlrun.execution import compiled
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.layered import LayeredRule, ParameterGroup
from dlrun.optimizers.sgd import SGD
from dlrun.optimizers.torch_optimizer import adapt
from dlrun.runs.build import Built, build
from dlrun.runs.weights.groups import settings_of
from dlrun.runs.weights.listing import weights_table
from dlrun.runs.weights.names import names_of
from dlrun.runs.weights.training import freeze
from dlrun.stacked.why_not import why_never
from dlrun.storage.identity import essential
from dlrun.types import Batch
from tests.conftest import Called
from tests.facts import refuses, says
from tests.runs.silent import Silent

STEPS = 8
BASE = (f"trainer.steps={STEPS}", "trainer.evaluate_every=5", "model.width=8", "model.depth=2")
LAYERS = ("layers.0", "layers.2", "layers.4")


def built(*overrides: str, optimizer: dict[str, Any] | None = None) -> Built:
    config = compose.config([*BASE, *overrides])
    if optimizer is not None:
        OmegaConf.update(config, "optimizer", optimizer, merge=False)
    return build(config)


def trained(run: Built) -> dict[str, torch.Tensor]:
    loop.train(run.training, State(), Silent())
    return run.training.objective.model.state_dict()


def by_hand(run: Built, make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer], groups: Any) -> nn.Module:
    """The same training with a torch.optim class; each group is (names, settings)."""
    model = copy.deepcopy(run.training.objective.model)
    named = dict(model.named_parameters())
    optimizer = make([{"params": [named[name] for name in names], **own} for names, own in groups])
    rates = [group["lr"] for group in optimizer.param_groups]
    for step, batch in enumerate(islice(run.training.batches.start(0), STEPS)):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * run.training.schedule(step, STEPS)
        optimizer.zero_grad()
        F.cross_entropy(model(batch.x), batch.y).backward()
        optimizer.step()
    return model


WEIGHTS, BIASES = ([f"{layer}.{kind}" for layer in LAYERS] for kind in ("weight", "bias"))
# biases without momentum, the last layer slower and without decay: its bias has both
GROUPS = "optimizer.groups={*.bias:{momentum:0.0,lr:0.05},layers.4:{lr:0.02,weight_decay:0},layers.0:{nesterov:true}}"
OF_SGD = [
    ([WEIGHTS[0]], {"nesterov": True}),
    ([WEIGHTS[1]], {}),
    ([WEIGHTS[2]], {"lr": 0.02, "weight_decay": 0.0}),
    (BIASES[1:2], {"lr": 0.05, "momentum": 0.0, "weight_decay": 0.0}),
    (BIASES[2:], {"lr": 0.02, "momentum": 0.0, "weight_decay": 0.0}),
]
"""By torch's groups. A bias of the first layer cannot be: Nesterov needs momentum."""


def test_a_built_in_rule_equals_the_groups_of_torch(here: Path) -> None:
    groups = GROUPS.replace("layers.0:{", "layers.0.weight:{")
    run = built("optimizer=sgd", "optimizer.lr=0.1", "optimizer.momentum=0.9", "optimizer.weight_decay=0.01", groups)
    expected = by_hand(
        run,
        lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01, fused=True),
        [*OF_SGD, (BIASES[:1], {"lr": 0.05, "momentum": 0.0, "weight_decay": 0.0})],
    ).state_dict()
    found = trained(run)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_adam_has_betas_and_decay_of_each_group(here: Path) -> None:
    groups = (
        "optimizer.groups={layers.2:{beta1:0.5,weight_decay:0.3,decay_all:true},layers.4:{lr_factor:0.5,beta2:0.9}}"
    )
    run = built("optimizer=adamw", "optimizer.lr=0.01", "optimizer.weight_decay=0.1", groups)
    last = {"lr": 0.01 * 0.5, "betas": (0.9, 0.9)}
    expected = by_hand(
        run,
        lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1, fused=True),
        [
            ([WEIGHTS[0]], {}),
            ([BIASES[0]], {"weight_decay": 0.0}),
            ([WEIGHTS[1], BIASES[1]], {"betas": (0.5, 0.999), "weight_decay": 0.3}),
            ([WEIGHTS[2]], last),
            ([BIASES[2]], last | {"weight_decay": 0.0}),
        ],
    ).state_dict()
    found = trained(run)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("name", "own", "others"),
    [
        ("RAdam", {"betas": [0.8, 0.9], "lr": 0.02}, {"eps": 1e-6}),
        ("RMSprop", {"momentum": 0.9, "alpha": 0.8}, {"weight_decay": 0.1}),
        ("Adagrad", {"lr": 0.03, "weight_decay": 0.0}, {"lr_decay": 0.1}),
    ],
)
def test_a_class_of_torch_gets_them_as_its_own(here: Path, name: str, own: Any, others: Any) -> None:
    optimizer = {
        "_target_": f"torch.optim.{name}",
        "lr": 0.01,
        "decay_all": True,
        "groups": {"layers.2": own, "layers.4": others},
    }
    run = built("schedule=linear", optimizer=optimizer)
    assert [len(group.places) for group in run.training.optimizer.rule.groups] == [2, 2, 2]  # type: ignore[attr-defined]
    expected = by_hand(
        run,
        lambda groups: getattr(torch.optim, name)(groups, lr=0.01),
        [([f"{at}.weight", f"{at}.bias"], each) for at, each in zip(LAYERS, ({}, own, others), strict=True)],
    ).state_dict()
    found = trained(run)
    for key, value in expected.items():
        # the schedule multiplies a rate that was divided by another
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-8)


def test_a_torch_class_without_a_schedule_is_equal_to_the_bit(here: Path) -> None:
    own = {"lr": 0.3, "betas": [0.5, 0.9]}
    run = built(optimizer={"_target_": "torch.optim.NAdam", "lr": 0.01, "groups": {"*.bias": own}})
    expected = by_hand(run, lambda groups: torch.optim.NAdam(groups, lr=0.01), [(WEIGHTS, {}), (BIASES, own)])
    found = trained(run)
    assert all(torch.equal(found[name], value) for name, value in expected.state_dict().items())


def test_each_setting_is_that_of_the_closest_pattern() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    named = names_of(model)
    groups = {
        "*.bias": {"weight_decay": 0.0},
        "1": {"lr": 0.1, "weight_decay": 0.5},
        "1.bias": {"lr_factor": 2.0},
        "*": {"beta1": 0.5},
    }
    for order in (groups, dict(reversed(groups.items()))):
        found = settings_of(named, order)
        own = {names[0]: found[id(p)] for p, names in named}
        assert {name: (each.lr, each.factor) for name, each in own.items()} == {
            "0.weight": (None, 1.0),
            "0.bias": (None, 1.0),
            "1.weight": (0.1, 1.0),
            # a factor of the optimizer's rate takes the place of the rate
            "1.bias": (None, 2.0),
        }
        assert own["0.bias"].arguments == {"weight_decay": 0.0, "beta1": 0.5}
        assert own["1.weight"].arguments == {"weight_decay": 0.5, "beta1": 0.5}
        assert own["1.bias"].arguments == {"weight_decay": 0.0, "beta1": 0.5}


class Tied(nn.Module):
    """Logits by the embedding's own matrix; a counter as a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.within, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.tanh(self.within(self.embedding(x))))
        return out


@pytest.mark.parametrize("pattern", ["embedding", "head", "head.weight"])
@pytest.mark.parametrize("torchs", [False, True])
def test_tied_weights_are_one_in_one_group(pattern: str, torchs: bool) -> None:
    torch.manual_seed(0)
    model = Tied()
    settings: dict[str | int, dict[str, Any]] = {pattern: {"lr": 0.5, "momentum": 0.5}}
    found = freeze(model, FineTune(), groups=settings)
    objective = Objective(model, cross_entropy)
    groups = found.groups(objective.params)
    assert sum(len(group.places) for group in groups) == 3
    if torchs:
        rule: Any = adapt(torch.optim.SGD, groups, lr=0.1, momentum=0.9)
    else:
        rules = [SGD(group.lr or 0.1, group.arguments.get("momentum", 0.9)) for group in groups]
        rule = LayeredRule(rules, groups, lr=0.1)
    other = copy.deepcopy(model)
    assert other.head.weight is other.embedding.weight
    expected = torch.optim.SGD(
        [{"params": [other.embedding.weight], "lr": 0.5, "momentum": 0.5}, {"params": other.within.parameters()}],
        lr=0.1,
        momentum=0.9,
        fused=not torchs,
    )
    descent = Descent(rule)
    descent.init(objective)
    batch = Batch(torch.arange(6), torch.arange(6).flip(0))
    for _ in range(5):
        descent.step(objective, batch, 0.1)
        expected.zero_grad()
        F.cross_entropy(other(batch.x), batch.y).backward()
        expected.step()
    assert model.head.weight is model.embedding.weight
    for name, value in other.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_frozen_weights_of_a_group_are_as_those_of_finetune(here: Path) -> None:
    one = trained(built("optimizer.groups={layers.0:{freeze:true},*.bias:{lr:0.1}}"))
    groups = "optimizer.groups={layers.2.bias:{lr:0.1},layers.4.bias:{lr:0.1}}"
    other = trained(built("finetune.freeze=[layers.0]", groups))
    assert all(torch.equal(one[name], value) for name, value in other.items())
    begun = built().training.objective.model.state_dict()
    assert torch.equal(one["layers.0.weight"], begun["layers.0.weight"])
    # a closer pattern trains what a wider one freezes
    run = built("optimizer.groups={*:{freeze:true},layers.4:{freeze:false}}")
    assert run.training.objective.names == ["layers.4.weight", "layers.4.bias"]


def test_an_optimizer_without_gradient_steps_has_frozen_weights(here: Path) -> None:
    run = built("optimizer=lbfgs", "trainer.batch_size=null", "optimizer.groups={layers.0:{freeze:true}}")
    assert run.training.objective.names == ["layers.2.weight", "layers.2.bias", "layers.4.weight", "layers.4.bias"]


def test_muon_has_groups(here: Path) -> None:
    run = built("optimizer=muon", "optimizer.groups={layers.2:{momentum:0.5,lr:0.01}}")
    rule = run.training.optimizer.rule  # type: ignore[attr-defined]
    assert [group.arguments for group in rule.groups] == [{}, {"momentum": 0.5}]
    before = copy.deepcopy(run.training.objective.model.state_dict())
    after = trained(run)
    alone = trained(built("optimizer=muon"))
    assert not torch.equal(after["layers.2.weight"], alone["layers.2.weight"])
    assert not torch.equal(after["layers.2.weight"], before["layers.2.weight"])


def test_they_compile_and_are_not_stacked(interpreted: list[Any], here: Path) -> None:
    groups = "optimizer.groups={*.bias:{lr:0.1,weight_decay:0},layers.4:{beta1:0.5}}"
    eager = trained(built(groups, "schedule=cosine", "trainer.compile=false"))
    run = built(groups, "schedule=cosine", "trainer.compile=true")
    assert compiled.why_not(run.training) is None
    found = trained(run)
    assert len(interpreted) == 1
    for name, value in eager.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    assert "optimizer.groups" in str(why_never(run.training))


def test_no_groups_are_no_part_of_an_identity() -> None:
    def config(groups: Any) -> dict[str, Any]:
        return essential({"optimizer": {"lr": 0.1, "groups": groups}})

    assert config(None) == essential({"optimizer": {"lr": 0.1}})
    assert config({"*": {"lr": 1.0}}) != config(None) != config({"*": {"lr": 2.0}})


def test_the_listing_has_names_shapes_rates_and_decay(here: Path) -> None:
    groups = "optimizer.groups={*.bias:{lr:0.1},layers.4:{weight_decay:0.5,beta1:0.8},layers.0.weight:{freeze:true}}"
    run = built(groups, "optimizer.lr=0.01", "optimizer.weight_decay=0.2")
    listed = weights_table(run.training.objective, run.training.optimizer, run.config["optimizer"])
    rows = [line.split() for line in listed.splitlines()][1:]
    assert [" ".join(row) for row in rows] == [
        "layers.0.weight (8, 64) frozen –",
        "layers.0.bias (8,) 0.1 – [*.bias]",
        "layers.2.weight (8, 8) 0.01 0.2",
        "layers.2.bias (8,) 0.1 – [*.bias]",
        "layers.4.weight (10, 8) 0.01 0.5 beta1=0.8 [layers.4]",
        "layers.4.bias (10,) 0.1 – beta1=0.8 [*.bias] [layers.4]",
    ]


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        (["optimizer.groups={*.bais:{lr:1}}"], ["`*.bais`", "`*.bias`", "layers.0.bias"]),
        (["optimizer.groups={layers.2:{momentum:0.9}}"], ["optimizer.groups.layers.2.momentum", "beta1"]),
        (["optimizer.groups={*.bias:{weight_decay:0.1}}"], ["acts on nothing", "decay_all:true"]),
        (["optimizer.groups={*.bias:{lr:-1}}"], ["optimizer.groups.*.bias.lr=-1"]),
        (["optimizer.groups={*.bias:{lr:1,lr_factor:2}}"], ["lr and lr_factor"]),
        (["optimizer.groups={*.bias:{}}"], ["weight_decay:0"]),
        (["optimizer.groups={*.bias:{_target_:os.system}}"], ["_target_"]),
        (["optimizer.groups={*.bias:{lr:1}}", "optimizer.lr=0"], ["optimizer.lr=0", "freeze"]),
        (["optimizer.groups={layers.0:{lr:1}}", "finetune.freeze=[layers.0]"], ["frozen", "`layers.0`"]),
        (["optimizer.groups={la*:{lr:1},*rs:{lr:2}}"], ["letters", "la*", "*rs"]),
        (["optimizer=lbfgs", "trainer.batch_size=null", "optimizer.groups={*.bias:{lr:1}}"], ["LBFGS"]),
        (["optimizer=least_squares", "optimizer.groups={*.bias:{lr:1}}"], ["optimizer.groups", "LeastSquares"]),
    ],
)
def test_mistakes_are_told_before_the_first_step(here: Path, given: list[str], facts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        built(*given)
    says(str(error.value), *facts)


def test_what_a_torch_class_has_for_all_weights_is_no_setting_of_some(here: Path) -> None:
    class Whole(torch.optim.SGD):
        def __init__(self, params: Any, lr: float = 0.1, size: int = 1) -> None:
            super().__init__(params, lr=lr)

    p = nn.Parameter(torch.zeros(2, 2))
    rule = adapt(Whole, [ParameterGroup([0], arguments={"size": 2})], lr=0.1)
    with pytest.raises(ConfigError, match=r"optimizer\.size=2"):
        rule.init([p], [True])


def test_a_loss_with_weights_has_groups_too() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, model: nn.Module, batch: Batch) -> torch.Tensor:
            return F.cross_entropy(self.scale * model(batch.x), batch.y, reduction="none")

    loss, model = Scaled(), nn.Linear(3, 2)
    found = freeze(model, FineTune(), groups={"loss.scale": {"lr": 0.5}}, loss=loss)
    objective = Objective(model, loss)
    assert [(group.lr, [objective.names[i] for i in group.places]) for group in found.groups(objective.params)] == [
        (None, ["weight", "bias"]),
        (0.5, ["loss.scale"]),
    ]


def test_resuming_is_exact(verify_resume: Callable[..., Called]) -> None:
    groups = "optimizer.groups={*.bias:{lr:0.1,beta1:0.5},layers.2:{weight_decay:0},layers.0.weight:{freeze:true}}"
    called = verify_resume(*BASE, groups, "tracking.enabled=false")
    assert called.code == 0, called.err


def test_the_command_lists_all_weights(call: Callable[..., Called]) -> None:
    called = call("check", "--parameters", *BASE)
    assert called.code == 0, called.err
    says(called.out, "layers.4.bias (10,) 0.001 –", "of which")
    refuses(call("check", "--parameters", "-m", "seed=0,1"), "one configuration")
