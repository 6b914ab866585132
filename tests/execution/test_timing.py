"""Forecasts: every optimizer is timed at rates of its own, and what only measures fails nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from dlrun.engine.objective import Objective
from dlrun.losses.mse import mse
from dlrun.optimizers.lbfgs import LBFGS
from dlrun.types import Batch
from tests.conftest import Called

Call = Callable[..., Called]
SMALL = ("dataset=moons", "model=mlp", "trainer.steps=3", "tracking.enabled=false")


@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer=lbfgs", "schedule=linear", "trainer.batch_size=null"),
        ("optimizer=muon", "trainer.accumulate=2"),
        ("optimizer=sgd",),
        (
            "optimizer=least_squares",
            "dataset=polynomial",
            "model=polynomial",
            "loss=mse",
            "trainer.batch_size=null",
            "trainer.steps=1",
        ),
    ],
)
def test_check_knows_the_time_of_every_optimizer(overrides: tuple[str, ...], call: Call) -> None:
    done = call("check", *SMALL, *overrides)
    assert done.code == 0, done.err
    assert re.search(r"takes +about \d", done.out)


def test_a_step_of_lbfgs_at_rate_0_moves_nothing() -> None:
    model = nn.Linear(2, 1)
    objective, rule = Objective(model, mse), LBFGS()
    rule.init(objective)
    before, batch = model.weight.clone(), Batch(torch.ones(3, 2), torch.zeros(3, 1))
    assert rule.step(objective, batch, 0.0).loss == objective(batch)
    assert torch.equal(model.weight, before)


FAILING = """
class Rule:
    def __init__(self, lr=0.1):
        self.lr = lr
    def init(self, params, decay):
        self.steps = 0
    def update(self, params, grads, lr):
        assert lr > 0, "a rate of 0"
        self.steps += 1
        if self.steps > 2:  # after those of the dry run
            raise ZeroDivisionError("at once")
    def state_dict(self):
        return {}
    def load_state_dict(self, state):
        pass
"""


def test_steps_that_fail_leave_the_time_unknown_and_the_check_whole(here: Path, call: Call) -> None:
    (here / "failing.py").write_text(FAILING)
    (here / "conf" / "optimizer").mkdir(parents=True)
    (here / "conf" / "optimizer" / "failing.yaml").write_text("_target_: failing.Rule\nlr: 0.1\n")
    own = ("optimizer=failing",)
    done = call("check", *SMALL, *own)
    assert done.code == 0
    assert "not known" in done.out and "ZeroDivisionError: at once" in done.out
    sweep = call("check", "-m", *SMALL, *own, "seed=0,1")
    assert sweep.code == 0, sweep.err
    assert "not known" in sweep.out and "about" in next(line for line in sweep.out.splitlines() if "disk" in line)
