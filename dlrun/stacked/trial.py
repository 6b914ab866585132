"""Whether a model, its loss and its metrics can be asked of many runs at once: tried on two samples, for two runs.

What under `vmap` cannot be traced (a decision by a value, a number read back, random draws) fails here, before a run
has begun, and what is computed is compared with what the run alone computes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor

from dlrun.engine.evaluation import evaluating, loss_total
from dlrun.engine.objective import Objective
from dlrun.stacked.objective import StackedObjective
from dlrun.types import Batch, Metric, Split

FEW = 2
"""Samples that are tried."""


def trial(objective: Objective, metrics: Mapping[str, Metric], split: Split, device: torch.device) -> str | None:
    """Return why a run's parts cannot be asked of many runs at once, in words; None if they can."""
    name = type(objective.model).__name__
    x, y = split.gather(torch.arange(min(FEW, len(split)), device=device))
    one = Batch(x.to(device), y.to(device))
    try:
        with warnings.catch_warnings():
            # what torch can only do for one run after another is no program of many
            warnings.filterwarnings("error", message=".*batching rule.*")
            same = _agree(objective, metrics, one)
    except Exception as error:  # whatever the parts of a user raise where they are not called one by one
        told = (str(error).splitlines() or [""])[0]
        return (
            f"{name}, its loss or a metric cannot be asked of many runs at once ({type(error).__name__}: {told[:120]})"
        )
    return None if same else f"{name}, its loss or a metric is another when many runs are asked at once"


def _agree(objective: Objective, metrics: Mapping[str, Metric], one: Batch) -> bool:
    """Return whether loss and metrics of two runs at once are those of one."""
    stack, both = StackedObjective([objective, objective]), Batch(*(torch.stack([t, t]) for t in one))
    exact = one.x.device.type == "cpu" and isinstance(objective.precision(), nullcontext)
    tolerance = 1e-4 if exact else 5e-2  # of tf32 and bf16
    same = _same(stack(both), objective(one), tolerance)
    with evaluating(objective.model):
        for name, (total, _) in stack.totals(metrics, both).items():
            with objective.precision():
                metric = metrics.get(name)
                expected = metric(objective.model, one) if metric else loss_total(objective, objective.model, one)
            same = same and _same(total, expected[0], tolerance)
    return same


def _same(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    both = expected.detach().double().expand(2)
    return torch.allclose(found.detach().double(), both, rtol=tolerance, atol=tolerance, equal_nan=True)
