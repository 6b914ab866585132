"""Frozen, slower and later weights train as in a loop written by hand, with the parameter groups of torch.optim."""

from __future__ import annotations

import copy
from itertools import islice
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.config import compose
from dlrun.config.settings import FineTune
from dlrun.datasets import from_tensors
from dlrun.engine import loop
from dlrun.engine.batches import Batches
from dlrun.engine.evaluation import evaluating
from dlrun.engine.objective import Objective
from dlrun.engine.plan import Plan
from dlrun.engine.state import State
from dlrun.errors import ConfigError
from dlrun.execution import compiled
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.layered import LayeredRule
from dlrun.optimizers.sgd import SGD
from dlrun.runs.build import Built, build
from dlrun.runs.weights.training import freeze
from dlrun.schedules.curves import constant
from dlrun.stacked.why_not import why_never
from dlrun.storage.identity import essential
from tests.runs.silent import Silent

STEPS = 12
BASE = (f"trainer.steps={STEPS}", "trainer.evaluate_every=5", "model.width=8", "model.depth=2", "schedule=cosine")
PARTS = ("layers.0", "layers.2", "layers.4")


def built(*overrides: str) -> Built:
    config = compose.config([*BASE, *(each for each in overrides if each != "optimizer=radam")])
    if "optimizer=radam" in overrides:
        OmegaConf.update(config, "optimizer", {"_target_": "torch.optim.RAdam", "lr": 0.01}, merge=False)
    return build(config)


def by_hand(run: Built, make: Any, factors: dict[str, float], begins: dict[str, int], clip: float | None) -> nn.Module:
    """The same training with a torch.optim class, the groups of parameters made by hand."""
    model = copy.deepcopy(run.training.objective.model)
    groups = []
    for part in PARTS:
        layer = model.get_submodule(part)
        layer.requires_grad_(begins[part] == 0)
        groups += [
            {"params": [layer.weight], "factor": factors[part]},
            {"params": [layer.bias], "factor": factors[part], "weight_decay": 0.0},
        ]
    optimizer = make(groups)
    for step, batch in enumerate(islice(run.training.batches.start(0), STEPS)):
        for part in PARTS:
            if begins[part] == step:
                model.get_submodule(part).requires_grad_()
        for group in optimizer.param_groups:
            group["lr"] = run.training.rate(step) * group["factor"]
        optimizer.zero_grad()
        F.cross_entropy(model(batch.x), batch.y).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return model


RULES: dict[str, tuple[tuple[str, ...], Any]] = {
    "sgd": (
        ("optimizer=sgd", "optimizer.lr=0.1", "optimizer.momentum=0.9", "optimizer.weight_decay=0.01"),
        lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01, fused=True),
    ),
    "adamw": (
        ("optimizer=adamw", "optimizer.lr=0.01", "optimizer.weight_decay=0.1"),
        lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1, fused=True),
    ),
    "radam": (
        ("optimizer=radam",),
        lambda groups: torch.optim.RAdam(groups, lr=0.01),
    ),
}
NEVER = STEPS + 1
CASES = {
    "factors": (("finetune.lr={layers.2:0.1,layers.4:3}",), (1.0, 0.1, 3.0), (0, 0, 0)),
    "frozen": (("finetune.freeze=[layers.0]", "finetune.lr={layers.4:2}"), (1.0, 1.0, 2.0), (NEVER, 0, 0)),
    "gradual": (("finetune.freeze=[layers.0,layers.2]", "finetune.unfreeze={layers.2:4}"), (1, 1, 1), (NEVER, 4, 0)),
    "thawed": (
        ("finetune.unfreeze={layers.0:8,layers.2.*:3}", "finetune.lr={*:0.5,layers.0:0.1}"),
        (0.1, 0.5, 0.5),
        (8, 3, 0),
    ),
}


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", CASES)
def test_layers_train_as_groups_of_a_torch_optimizer(case: str, rule: str, clip: float | None) -> None:
    (overrides, factors, begins), (optimizer, make) = CASES[case], RULES[rule]
    run = built(*overrides, *optimizer, f"trainer.clip={clip or 'null'}")
    expected = by_hand(
        run, make, dict(zip(PARTS, factors, strict=True)), dict(zip(PARTS, begins, strict=True)), clip
    ).state_dict()
    loop.train(run.training, State(), Silent())
    found = run.training.objective.model.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-7, msg=name)
    if clip is None and rule != "radam":
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def normed() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6), nn.BatchNorm1d(6, affine=False), nn.Linear(6, 3)
    )


def training(model: nn.Module, settings: FineTune, **options: Any) -> loop.Training:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 4, generator=g), torch.arange(60) % 3
    data = from_tensors("made", (x[:40], y[:40]), (x[40:], y[40:]), None, task="classification")
    trained = freeze(model, settings)
    objective = Objective(model, cross_entropy)
    groups = trained.groups(objective.params)
    rule = LayeredRule([SGD(lr=0.1, momentum=0.9) for _ in groups], groups) if groups else SGD(lr=0.1, momentum=0.9)
    optimizer = Descent(rule)
    optimizer.init(objective)
    return loop.Training(
        objective=objective,
        batches=Batches(data.train, size=8, seed=0, device=torch.device("cpu")),
        optimizer=optimizer,
        schedule=constant,
        plan=Plan(steps=10, per_epoch=5, log_every=1, evaluate_every=2),
        seed=0,
        device=torch.device("cpu"),
        validation=data.validation,
        thaw=trained.thaw(objective),
        **options,
    )


@pytest.mark.parametrize(
    ("frozen", "moving"),
    [(["0", "1"], {"4"}), ([1, 4], set()), (["1.bias"], {"1", "4"}), (["1.weight", "1.bias"], {"4"})],
    ids=["named", "without-weights", "bias-alone", "by-weights"],
)
def test_frozen_norms_keep_their_statistics(frozen: list[str | int], moving: set[str]) -> None:
    run = training(normed(), FineTune(freeze=frozen))
    before = copy.deepcopy(run.objective.model.state_dict())
    loop.train(run, State(), Silent())  # validated every other step, which must not wake them
    after = run.objective.model.state_dict()
    for norm in ("1", "4"):
        moved = not torch.equal(before[f"{norm}.running_mean"], after[f"{norm}.running_mean"])
        assert moved == (norm in moving)


def test_a_norm_whose_weights_the_model_itself_holds_fixed_goes_on_counting() -> None:
    model = normed()
    model[1].requires_grad_(False)
    for settings, moving in ((FineTune(), True), (FineTune(freeze=["0"]), True), (FineTune(freeze=[1]), False)):
        run = training(copy.deepcopy(model), settings)
        loop.train(run, State(), Silent())
        assert bool(run.objective.model[1].running_mean.any()) == moving  # type: ignore[index]


def test_a_norm_thaws_with_its_part() -> None:
    run, seen = training(normed(), FineTune(unfreeze={"0": 4, "1": 4})), list[float]()

    class Watching(Silent):
        def point(self, step: int, epoch: float, values: dict[str, Any]) -> None:
            seen.append(float(run.objective.model[1].num_batches_tracked))  # type: ignore[index]

    loop.train(run, State(), Watching())
    # of ten steps, with a validation after every other one
    assert [seen[0], seen[-1]] == [0, 6]


def test_an_evaluation_leaves_each_module_in_its_mode() -> None:
    model = normed()
    model[1].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model] == [True, False, True, True, True, True]


def test_frozen_weights_take_no_state_and_no_gradient() -> None:
    run = training(normed(), FineTune(freeze=["0", "1", "3"]))
    loop.train(run, State(), Silent())
    model = run.objective.model
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["5.weight", "5.bias"]
    assert [tuple(v.shape) for v in run.optimizer.state_dict()["velocity"]] == [(3, 6), (3,)]  # type: ignore[attr-defined]


def test_frozen_and_slower_weights_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    def interpret(graph: Any, given: list[Tensor]) -> Any:
        traced.append(graph)
        return lambda flat: [t.detach() for t in graph(*flat)]

    traced: list[Any] = []
    monkeypatch.setattr(compiled, "_lower", interpret)
    runs = []
    for options in ({}, {"make_stepper": compiled.make_stepper}):
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
        torch.manual_seed(0)
        for p in model.parameters():
            nn.init.normal_(p, std=0.3)
        runs.append(training(model, FineTune(freeze=["0"], lr={"2": 0.1}), **options))
        loop.train(runs[-1], State(), Silent())
    assert len(traced) == 1
    for name, value in runs[0].objective.model.state_dict().items():
        torch.testing.assert_close(runs[1].objective.model.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    assert "finetune.unfreeze" in (compiled.why_not(training(normed(), FineTune(unfreeze={"0": 1}))) or "")


def test_stacking_says_why_not() -> None:
    plain = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    assert "finetune.freeze" in (why_never(training(copy.deepcopy(plain), FineTune(freeze=["0"]))) or "")
    assert "finetune" in (why_never(training(copy.deepcopy(plain), FineTune(lr={"0": 0.1}))) or "")
    assert why_never(training(plain, FineTune())) is None


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        (FineTune(freeze=["1.weigth"]), ["finetune.freeze", "1.weigth", "1.weight", "5.bias"]),
        (FineTune(lr={"head": 0.1}), ["finetune.lr", "head", "0.weight"]),
        (FineTune(unfreeze={"head": 1}), ["finetune.unfreeze", "head"]),
        (FineTune(lr={"0": 0.0}), ["finetune.lr", "0.0", "finetune.freeze=[0]"]),
        (FineTune(lr={"0": float("nan")}), ["finetune.lr", "nan"]),
        (FineTune(unfreeze={"0": 0}), ["finetune.unfreeze", "1 or more"]),
        (FineTune(freeze=["0"], lr={"0": 2.0}), ["finetune.lr", "`0`", "frozen"]),
        (FineTune(lr={"?": 2.0, "*": 1.0}), ["`?: 2.0`", "`*: 1.0`"]),
        (FineTune(unfreeze={"*": 5}), ["nothing trains before step 5"]),
    ],
)
def test_mistakes_are_refused_with_the_names(settings: FineTune, facts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        training(normed(), settings)
    assert all(fact in str(error.value) for fact in facts), str(error.value)


def test_the_closest_pattern_counts_whatever_the_order() -> None:
    for lr in ({"*": 0.1, "5": 2.0, "5.bias": 3.0}, {"5.bias": 3.0, "5": 2.0, "*": 0.1}):
        model = normed()
        factors = freeze(model, FineTune(lr=dict(lr))).factors
        assert [factors[id(p)] for p in model.parameters()] == [0.1] * 6 + [2.0, 3.0]


def test_tied_weights_freeze_by_either_name() -> None:
    for name in ("0", "1"):
        model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False), nn.Linear(5, 2))
        model[1].weight = model[0].weight
        freeze(model, FineTune(freeze=[name]))
        assert not model[0].weight.requires_grad


def test_settings_that_say_nothing_are_no_part_of_an_identity() -> None:
    unset = {"freeze": [], "lr": None, "unfreeze": None}
    assert essential({"seed": 0, "finetune": unset, "init_from_skip": []}) == {"seed": 0}
    assert essential({"finetune": {"freeze": ["a"]}}) == {"finetune": {"freeze": ["a"]}}
    assert essential({"dataset": {"per_class": None, "path": None}}) == essential({"dataset": {"path": None}})
    assert essential({"dataset": {"per_class": 3}}) != essential({"dataset": {}})
