"""Forecasts of a run's time, from a few steps undone afterwards."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import islice
from typing import NamedTuple

import torch

from dlrun.engine import loop
from dlrun.engine.evaluation import evaluate
from dlrun.errors import DlrunError, place

WARM_UP = 3
"""Steps that allocate: at least one more is timed."""
SECONDS = 1.0
"""Time to spend on steps, if 1000 steps take so long."""


def steps_within(run: loop.Training, minutes: float) -> int:
    """The number of steps, with their validations, for `minutes`."""
    return max(1, int(minutes * 60 / _each(run)))


class Forecast(NamedTuple):
    """The seconds of a run's plan, or the reason why they are not known."""

    seconds: float | None
    why: str = ""


def forecast(run: loop.Training) -> Forecast:
    """The time of a run's plan, validations included.

    Whatever fails in the steps leaves it unknown, but for dlrun's own errors: parts that do not fit together, a sample
    that cannot be read.
    """
    try:
        return Forecast(run.plan.steps * _each(run))
    except DlrunError:
        raise
    except Exception as error:
        return Forecast(None, f"a few steps of it failed: {type(error).__name__}: {error}{place(error)}")


def _each(run: loop.Training) -> float:
    """The seconds of a step, with its share of validation."""
    before = loop.clone_state(run.objective.model.state_dict())
    try:
        return _step_seconds(run) + _validation_seconds(run) / run.plan.evaluate_every
    finally:
        # the run begins as if there had been no steps: weights and batch norms have moved, the optimizer counted
        run.objective.model.load_state_dict(before)
        run.optimizer.init(run.objective)  # no step was taken before


def _step_seconds(run: loop.Training) -> float:
    took: list[float] = []
    run.objective.model.train()
    with closing(run.batches.start(0)) as batches:
        for step, batch in enumerate(islice(batches, 1000)):
            # the run's own rates: a rule may divide by its rate, so that 0 is none
            rate = run.rate(min(step, run.plan.steps - 1))
            tic = time.perf_counter()
            run.optimizer.step(run.objective, batch, rate)
            if run.device.type == "cuda":
                torch.cuda.synchronize(run.device)
            took.append(time.perf_counter() - tic)
            if len(took) > WARM_UP and sum(took) > SECONDS:
                break
    return sorted(took)[len(took) // 2]  # the first steps allocate, and take longer


def _validation_seconds(run: loop.Training) -> float:
    if run.validation is None:
        return 0.0
    tic = time.perf_counter()
    evaluate(run.objective, run.metrics, run.validation, batch_size=run.evaluation_batch_size, device=run.device)
    return time.perf_counter() - tic
