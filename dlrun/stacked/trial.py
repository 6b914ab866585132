"""A trial of two stacked runs on two samples: do model, loss and metrics compute the same as for one run?

A part that `vmap` cannot trace (a branch on a value, a number read back, random draws) fails here, before a run has
begun.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor

from dlrun.engine.evaluation import evaluating
from dlrun.engine.forward.totals import loss_total
from dlrun.engine.forward.whole_split import of_batches
from dlrun.engine.objective import Objective
from dlrun.stacked.objective import StackedObjective
from dlrun.types import Batch, Metric, Split

FEW = 2
"""Samples of the trial."""


def trial(objective: Objective, metrics: Mapping[str, Metric], split: Split, device: torch.device) -> str | None:
    """The reason against computing many runs at once, or None."""
    name = type(objective.model).__name__
    one = split.gather(torch.arange(min(FEW, len(split)), device=device)).to(device)
    if not one.plain:
        return "its samples are several tensors, or have weights"
    try:
        with warnings.catch_warnings():
            # an operation without a batching rule is a loop over the runs: no gain
            warnings.filterwarnings("error", message=".*batching rule.*")
            same = _agree(objective, metrics, one)
    except Exception as error:  # whatever a user's parts raise under `vmap`
        line = (str(error).splitlines() or [""])[0][:120]
        problem = f"cannot be computed for many runs at once ({type(error).__name__}: {line})"
    else:
        problem = "" if same else "differs when many runs are computed at once"
    return f"{name}, its loss or a metric {problem}" if problem else None


def _agree(objective: Objective, metrics: Mapping[str, Metric], one: Batch) -> bool:
    stack, both = StackedObjective([objective, objective]), Batch(*(torch.stack([t, t]) for t in one))
    exact = one.x.device.type == "cpu" and isinstance(objective.precision(), nullcontext)
    tolerance = 1e-4 if exact else 5e-2  # tf32 and bf16 round so
    same = _same(stack(both), objective(one), tolerance)
    with evaluating(objective.model):
        # metrics of a split are computed of the outputs of one run at a time
        metrics = of_batches(metrics)
        for name, (total, _) in stack.totals(metrics, both).items():
            with objective.precision():
                metric = metrics.get(name)
                expected = metric(objective.model, one) if metric else loss_total(objective.loss, objective.model, one)
            same = same and _same(total, expected[0], tolerance)
    return same


def _same(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    both = expected.detach().double().expand(2)
    return torch.allclose(found.detach().double(), both, rtol=tolerance, atol=tolerance, equal_nan=True)
