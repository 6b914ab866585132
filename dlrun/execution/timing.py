"""Forecasts of a run's time, from a few steps undone afterwards."""

from __future__ import annotations

import time
from itertools import islice

import torch

from dlrun.engine import loop
from dlrun.engine.evaluation import evaluate

WARM_UP = 3
"""Steps that allocate: at least one more is timed."""
SECONDS = 1.0
"""Time to spend on steps, if 1000 steps take so long."""


def steps_within(run: loop.Training, minutes: float) -> int:
    """The number of steps, with their validations, for `minutes`."""
    return max(1, int(minutes * 60 / _each(run)))


def seconds_for(run: loop.Training) -> float:
    """The seconds of a run's plan, validations included."""
    return run.plan.steps * _each(run)


def _each(run: loop.Training) -> float:
    """The seconds of a step, with its share of validation."""
    before = loop.clone_state(run.objective.model.state_dict())
    seconds = _step_seconds(run) + _validation_seconds(run) / run.plan.evaluate_every
    # the run begins as if there had been no steps: a batch norm has moved, the optimizer counted
    run.objective.model.load_state_dict(before)
    run.optimizer.init(run.objective)  # no step was taken before
    return seconds


def _step_seconds(run: loop.Training) -> float:
    took: list[float] = []
    run.objective.model.train()
    for batch in islice(run.batches.start(0), 1000):
        tic = time.perf_counter()
        # at rate 0 the arithmetic is the same and the weights do not go astray
        run.optimizer.step(run.objective, batch, 0.0)
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
