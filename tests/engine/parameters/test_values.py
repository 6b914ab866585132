"""The numbers of a small model as curves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from dlrun.engine import loop
from dlrun.engine.objective import Objective
from dlrun.engine.parameters.values import check_small, parameter_values
from dlrun.engine.state import State
from dlrun.errors import ConfigError
from dlrun.losses.mse import mse
from dlrun.models.polynomial import Polynomial
from dlrun.optimizers.descent import Descent
from dlrun.optimizers.sgd import SGD
from dlrun.stacked.why_not import why_never
from dlrun.storage.journal import curves
from dlrun.storage.lookup import all_runs
from tests.conftest import Called
from tests.engine.parameters.test_gradient_norms import Notes, training

Call = Callable[..., Called]
LINE = (
    "dataset=polynomial",
    "model=polynomial",
    "model.degree=1",
    "loss=mse",
    "optimizer=sgd",
    "optimizer.lr=0.5",
    "trainer.batch_size=null",
)
QUICK = ("tracking.enabled=false", "trainer.figures=false", "trainer.steps=6", "trainer.log_every=3")


def test_each_number_is_a_curve() -> None:
    objective = Objective(Polynomial((1,), 1, degree=2), mse)
    with torch.no_grad():
        objective.params[0].copy_(torch.tensor([[1.0], [2.0], [4.0]]))
    names = [f"parameter/coefficients.{i}" for i in range(3)]
    assert parameter_values(objective) == dict(zip(names, (1.0, 2.0, 4.0), strict=True))
    check_small(objective)
    with pytest.raises(ConfigError, match="log_parameters"):
        check_small(training().objective)


def test_a_run_with_logged_parameters_trains_alone() -> None:
    run = training(SGD(lr=0.1))
    assert why_never(run) is None
    assert "log_parameters" in (why_never(replace(run, log_parameters=True)) or "")


def test_the_last_point_is_where_the_run_ends(call: Call) -> None:
    for value in ("true", "false"):
        assert call("train", *LINE, *QUICK, f"trainer.log_parameters={value}").code == 0
    logged, plain = all_runs()
    found = curves(logged.journal)
    weights = torch.load(logged.last, weights_only=True)["model"]["coefficients"].flatten().tolist()
    for i, value in enumerate(weights):
        assert [step for step, _ in found[f"parameter/coefficients.{i}"]] == [3, 6]
        assert found[f"parameter/coefficients.{i}"][-1] == (6, value)
    assert logged.summary().metrics == plain.summary().metrics
    assert logged.summary().identity != plain.summary().identity
    done = call("train", *QUICK, "trainer.log_parameters=true")
    assert done.code == 2 and "at most 16 numbers" in done.err


def test_a_loop_by_hand_logs_them_too() -> None:
    objective, optimizer, notes = Objective(torch.nn.Linear(4, 2), mse), Descent(SGD(lr=0.1)), Notes()
    optimizer.init(objective)
    run = training()
    objective.loss = run.objective.loss
    loop.train(replace(run, objective=objective, optimizer=optimizer, log_parameters=True), State(), notes)
    assert sum(name.startswith("parameter/") for name in notes.points[14]) == 10
