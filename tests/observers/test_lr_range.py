"""The learning-rate range test: the schedule, the suggestion, the end at divergence."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from dlrun.observers.lr_range import diverges, smooth, suggest
from dlrun.storage.journal import curves
from dlrun.storage.lookup import all_runs
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]


def test_the_suggestion_is_the_inflection_of_a_logistic_curve() -> None:
    draw = random.Random(0)
    rates = [10 ** (-6 + 7 * i / 199) for i in range(200)]
    losses = [2.3 - 2 / (1 + math.exp(-4 * (math.log10(r) + 2.5))) + r + draw.gauss(0, 0.03) for r in rates]
    found = suggest(rates, losses)
    assert found is not None
    # where the derivative of the curve itself is lowest, on a fine grid
    grid = [x / 1000 for x in range(-6000, 0)]
    slope = [-8 * math.exp(-4 * (x + 2.5)) / (1 + math.exp(-4 * (x + 2.5))) ** 2 + math.log(10) * 10**x for x in grid]
    assert math.log10(found.rate) == pytest.approx(grid[slope.index(min(slope))], abs=0.2)


@pytest.mark.parametrize("losses", [[1.0] * 50, [1.0 + 0.1 * i for i in range(50)], [2.0, 1.0]])
def test_no_descent_has_no_suggestion(losses: list[float]) -> None:
    assert suggest([10 ** (i / 10) for i in range(len(losses))], losses) is None


def test_smoothing_keeps_lines_and_the_length() -> None:
    line = [0.5 * i - 3 for i in range(40)]
    assert smooth(line) == pytest.approx(line)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_run_that_falls_does_not_diverge(sign: float) -> None:
    losses = [sign * (2.3 if sign < 0 else 3.0) - 0.02 * i for i in range(100)]
    assert not any(diverges(losses[: i + 1], 4.0) for i in range(1, 100))
    assert diverges([*losses, *[1e3] * 3], 4.0)


def test_the_experiment_finds_a_rate_and_ends(here: Path, call: Call) -> None:
    done = call("train", "+experiment=lr_range", "optimizer=sgd", "tracking.enabled=false", "trainer.figures=false")
    assert done.code == 0, done.err
    run = all_runs()[-1]
    rates = [rate for _, rate in curves(run.journal)["lr"]]
    assert rates[0] == pytest.approx(1e-6)
    # equal ratios, of which 199 make ten million
    assert {round(b / a, 9) for a, b in pairwise(rates)} == {round(1e7 ** (1 / 199), 9)}
    summary = run.summary()
    assert summary.stopped["by"] == "observers.lr_range"
    assert summary.steps is not None and summary.steps < 200
    assert summary.test_reads == 0
    ((_, suggestion),) = curves(run.journal)["lr_range/suggestion"]
    assert 0.03 < suggestion < 0.6
    says(done.out, f"optimizer.lr={suggestion:.2g}", "steep")
    assert (run.figures / "lr_range.png").stat().st_size > 10_000


def test_a_loss_that_is_no_number_at_once_is_drawn_too(here: Path, call: Call) -> None:
    done = call(
        *("train", "+experiment=lr_range", "optimizer=sgd", "tracking.enabled=false", "schedule.factor=1e40"),
        "trainer.figures=false",
    )
    assert done.code in (0, 1)
    assert (all_runs()[-1].figures / "lr_range.png").exists()


def test_it_is_combined_with_another_experiment(here: Path, call: Call) -> None:
    done = call("train", "+experiment=[digits,lr_range]", "--cfg", "job")
    says(done.out, "name: digits-lr_range", "lr: 1.0e-06", "epochs: 30", "steps: 200")


def test_a_rate_that_does_not_rise_is_refused(here: Path, call: Call) -> None:
    refuses(call("train", "+observer=lr_range", "tracking.enabled=false"), "constant", "+experiment=lr_range")
