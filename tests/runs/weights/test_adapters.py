"""Runs with LoRA adapters: what trains, how, and what becomes of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dlrun as package
from dlrun.config import compose
from dlrun.config.settings import FineTune
from dlrun.engine import loop
from dlrun.engine.state import State
from dlrun.errors import ConfigError
from dlrun.models.gpt import GPT
from dlrun.runs.build import build
from dlrun.runs.weights.training import freeze
from dlrun.stacked.why_not import why_never
from dlrun.storage import checkpoint
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.facts import refuses, says
from tests.runs.silent import Silent

Call = Callable[..., Called]
QUICK = ("tracking.enabled=false", "trainer.figures=false", "model.hidden=[8,8]")
STEPS = 10


def train(call: Call, *overrides: str) -> RunDir:
    known = all_runs()
    done = call("train", *QUICK, *overrides)
    assert done.code == 0, done.err
    return next(run for run in all_runs() if run not in known)


def test_adapters_train_as_the_formula_in_a_loop_of_torch() -> None:
    lora = ("finetune.lora.rank=2", "finetune.lora.alpha=4", "finetune.lora.train=[layers.4]")
    run = build(compose.config([*QUICK, *lora, f"trainer.steps={STEPS}", "optimizer.lr=0.01", "schedule=cosine"]))
    model = run.training.objective.model
    values = {name: value.clone() for name, value in model.state_dict().items()}
    assert run.trained == 2 * (64 + 8) + 2 * (8 + 8) + 90
    matrices = [values[f"layers.{i}.weight_lora_{side}"].requires_grad_() for i in (0, 2) for side in "ab"]
    head = [values["layers.4.weight"].requires_grad_(), values["layers.4.bias"].requires_grad_()]

    def forward(x: Tensor) -> Tensor:
        h = x.flatten(1)
        for i in (0, 2):
            a, b = values[f"layers.{i}.weight_lora_a"], values[f"layers.{i}.weight_lora_b"]
            h = (h @ values[f"layers.{i}.weight"].T + 4 / 2 * (h @ a.T @ b.T) + values[f"layers.{i}.bias"]).relu()
        return F.linear(h, *head)

    optimizer = torch.optim.AdamW(
        [{"params": [*matrices, head[0]]}, {"params": head[1:], "weight_decay": 0.0}], lr=0.01, weight_decay=0.01
    )
    for step, batch in enumerate(islice(run.training.batches.start(0), STEPS)):
        for group in optimizer.param_groups:
            group["lr"] = run.training.rate(step)
        optimizer.zero_grad()
        F.cross_entropy(forward(batch.x), batch.y).backward()
        optimizer.step()
    assert run.config["optimizer"]["weight_decay"] == 0.01
    loop.train(run.training, State(), Silent())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, values[name].detach(), rtol=1e-4, atol=1e-6, msg=name)


def test_a_run_with_adapters_from_its_beginning_to_its_export(here: Path, call: Call) -> None:
    base = train(call, "trainer.steps=5", "seed=5")
    before = checkpoint.load_best(base.best).model
    tuned = (f"init_from={base.id}", "finetune.lora.rank=2", "trainer.evaluate_every=2", "optimizer.lr=0.01")
    # B is zero: the run begins as the one that it is made of
    still = train(call, *tuned, "trainer.steps=1", "optimizer.lr=0")
    assert still.summary().metrics == pytest.approx(base.summary().metrics, rel=1e-6)
    whole = train(call, *tuned, "trainer.steps=8")
    kept = checkpoint.load(whole.last).model
    assert all(torch.equal(kept[name], value) for name, value in before.items())
    assert any(kept[name].any() for name in kept if name.endswith("_lora_b"))
    assert whole.summary().trained_parameters == 2 * (64 + 8 + 8 + 8 + 8 + 10)
    # resumed bit for bit
    part = train(call, *tuned, "trainer.steps=3")
    assert call("resume", part.id, "trainer.steps=8").code == 0
    again = checkpoint.load(part.last).model
    assert kept.keys() == again.keys() and all(torch.equal(kept[name], again[name]) for name in kept)
    # read for use: the plain model with merged matrices, whose numbers are those of the training
    loaded = package.load(whole.id)
    assert [type(m) for m in loaded.model.modules() if isinstance(m, nn.Linear)] == [nn.Linear] * 3
    test = loaded.data.test
    assert test is not None
    x, y = test.gather(torch.arange(len(test)))
    with torch.no_grad():
        error = (loaded.model(x).argmax(1) != y).float().mean()
    assert float(error) == pytest.approx(whole.summary().metrics["test/error"], abs=1e-6)
    assert call("test", whole.id).code == 0
    # and so a beginning for others, by its folder or its file
    for source in (whole.id, str(whole.best)):
        child = train(call, f"init_from={source}", "trainer.steps=1", "optimizer.lr=0")
        assert child.summary().metrics == pytest.approx(whole.summary().metrics, rel=1e-5)
    says(call("check", *QUICK, *tuned).out, "212 train")


def test_a_new_head_trains_whole_beside_adapters(here: Path, call: Call) -> None:
    base = train(call, "trainer.steps=2")
    run = train(
        call, f"init_from={base.id}", "init_from_skip=[layers.4]", "finetune.lora.rank=2", "trainer.steps=2", "seed=3"
    )
    names = checkpoint.load(run.last).model
    assert "layers.4.weight_lora_a" not in names and "layers.2.weight_lora_a" in names
    assert run.summary().trained_parameters == 2 * (64 + 8 + 8 + 8) + 90


def normed() -> nn.Module:
    torch.manual_seed(0)
    norms = [nn.BatchNorm1d(6), nn.BatchNorm1d(6, affine=False)]
    return nn.Sequential(nn.Linear(4, 6), norms[0], nn.Linear(6, 6), norms[1], nn.Conv1d(1, 1, 1), nn.Linear(6, 3))


def lora(**given: Any) -> FineTune:
    return FineTune(lora={"rank": 2, **given})


def trains(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad]


def test_what_trains_beside_adapters() -> None:
    model = normed()
    found = freeze(model, lora(targets=["0"], train=["5.bias"]))
    assert trains(model) == ["0.weight_lora_a", "0.weight_lora_b", "5.bias"]
    # frozen norms keep their statistics, with weights of their own or without
    assert [*found.norms] == [model[1], model[3]] and not any(found.norms.values())  # type: ignore[index]
    # one that trains whole counts on
    found = freeze(model := normed(), lora(targets=["0"], train=["1"]))
    assert [*found.norms] == [model[3]]  # type: ignore[index]
    model = normed()
    found = freeze(model, FineTune(freeze=["0"], lr={"*_lora_b": 16.0}, lora={"rank": 1, "alpha": None}))
    assert trains(model) == [f"{i}.weight_lora_{side}" for i in (2, 5) for side in "ab"]
    assert [*found.factors.values()] == [16.0, 16.0]


def test_other_draws_are_the_same_with_adapters_and_without() -> None:
    config = ["model.hidden=[8]", "trainer.steps=2"]
    plain, adapted = (build(compose.config([*config, *more])) for more in ([], ["finetune.lora.rank=2"]))
    values = adapted.training.objective.model.state_dict()
    assert all(torch.equal(values[n], v) for n, v in plain.training.objective.model.state_dict().items())
    other = build(compose.config([*config, "finetune.lora.rank=2", "seed=1"])).training.objective.model.state_dict()
    assert not torch.equal(other["layers.0.weight_lora_a"], values["layers.0.weight_lora_a"])
    assert adapted.identity != plain.identity
    assert "finetune.lora" in (why_never(adapted.training) or "")


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        (lora(targets=["head"]), ["finetune.lora.targets", "head"]),
        (lora(targets=["4"]), ["finetune.lora.targets", "`4`", "  0\n  2\n  5"]),
        (lora(train=["nope"]), ["finetune.lora.train", "nope", "5.bias"]),
        (lora(targets=["0"], train=["0"]), ["0 would train whole", "adapter"]),
        (FineTune(lora={"rank": 0}), ["finetune.lora.rank=0"]),
        (FineTune(lora={"rank": 2, "alpha": 0.0}), ["finetune.lora.alpha=0.0", "above 0", "finetune.lora.alpha=2"]),
        (FineTune(lora={"rank": 2, "alpha": float("nan")}), ["finetune.lora.alpha=nan"]),
        (FineTune(lora={"rank": None, "alpha": 2.0}), ["finetune.lora.alpha", "finetune.lora.rank=8"]),
        (FineTune(unfreeze={"0.weight": 3}, lora={"rank": 2}), ["finetune.unfreeze", "0.weight", "frozen for ever"]),
        (FineTune(lr={"1": 3.0}, lora={"rank": 2}), ["finetune.lr", "`1`", "frozen for ever"]),
    ],
)
def test_mistakes_are_refused(settings: FineTune, facts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        freeze(normed(), settings)
    assert all(fact in str(error.value) for fact in facts), str(error.value)


def test_a_matrix_that_is_an_embedding_too_has_no_adapter() -> None:
    model = GPT((8,), 11, layers=1, heads=2, width=8)
    tied = copy.deepcopy(model)
    with pytest.raises(ConfigError, match=r"head shares its weight.*embedding\.weight"):
        freeze(tied, lora(targets=["head"]))
    freeze(model, lora())
    assert not any(name.startswith("head") for name in trains(model)) and len(trains(model)) == 8


def test_a_misspelt_setting_is_named(call: Call) -> None:
    refuses(call("train", *QUICK, "finetune.lora.rnak=2"), "finetune.lora", "rank")
    refuses(call("train", *QUICK, "finetune.lora.rank=x"), "finetune.lora.rank=x", "a whole number")
