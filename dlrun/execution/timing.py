"""Forecasts of a run's time, from a few steps undone afterwards."""

from __future__ import annotations

import time
from collections.abc import Sequence
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
    before = run.weights(0, {})
    try:
        return _step_seconds(run) + _validation_seconds(run) / run.plan.evaluate_every
    finally:
        # the run begins as if there had been no steps: weights and batch norms have moved, the optimizer counted
        run.put(before)
        run.optimizer.init(run.objective)  # no step was taken before


def _step_seconds(run: loop.Training) -> float:
    """The seconds of a step, on average over an epoch, whose last batch may be smaller."""
    took: list[tuple[float, int]] = []
    run.objective.train()
    with closing(run.batches.start(0)) as batches:
        for step, batch in enumerate(islice(batches, 1000)):
            # the run's own rates: a rule may divide by its rate, so that 0 is none
            rate = run.rate(min(step, run.plan.steps - 1))
            tic = time.perf_counter()
            run.optimizer.step(run.objective, batch, rate)
            if run.device.type == "cuda":
                torch.cuda.synchronize(run.device)
            took.append((time.perf_counter() - tic, batch.size))
            if len(took) > WARM_UP and sum(seconds for seconds, _ in took) > SECONDS:
                break
    return mean_step(took, full=run.batches.size, last=run.batches.last, per_epoch=run.batches.per_epoch)


def mean_step(took: Sequence[tuple[float, int]], *, full: int, last: int, per_epoch: int) -> float:
    """The seconds of an epoch's mean step, by the (seconds, samples) of some.

    A last batch that was not timed takes time by its samples.

    >>> mean_step([(0.9, 100), (0.2, 100), (0.2, 100), (0.2, 100)], full=100, last=10, per_epoch=3)
    0.14
    """
    # the median: the first steps allocate, and take longer
    whole, short = (sorted(seconds for seconds, size in took if (size < full) == shorter) for shorter in (False, True))
    if not whole or last >= full:
        every = sorted(seconds for seconds, _ in took)
        return every[len(every) // 2]
    each = whole[len(whole) // 2]
    end = short[len(short) // 2] if short else each * last / full
    return ((per_epoch - 1) * each + end) / per_epoch


def _validation_seconds(run: loop.Training) -> float:
    if run.validation is None:
        return 0.0
    tic = time.perf_counter()
    evaluate(run.objective, run.metrics, run.validation, batch_size=run.evaluation_batch_size, device=run.device)
    return time.perf_counter() - tic
