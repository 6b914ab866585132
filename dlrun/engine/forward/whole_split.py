"""Metrics of a whole split: from the outputs of all its samples, or states of their own, not from sums over batches."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from numbers import Real
from typing import Any, cast

import torch
from torch import Tensor

from dlrun.engine.forward.states import StateMetric, is_state_metric
from dlrun.metrics import is_of_split
from dlrun.types import Metric, Outputs, Split, SplitMetric

OUTPUTS = "outputs and targets"
"""The name of a batch's outputs and targets among its totals; no metric can have it."""


def of_batches(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics that are sums over batches."""
    return {name: metric for name, metric in metrics.items() if not (is_of_split(metric) or is_state_metric(metric))}


def of_states(metrics: Mapping[str, Metric]) -> dict[str, StateMetric]:
    """The metrics that add up states of their own."""
    found: Mapping[str, object] = metrics
    return {name: metric for name, metric in found.items() if is_state_metric(metric)}


def ask_outputs(metrics: Mapping[str, Metric]) -> bool:
    """Does a metric take the outputs and targets of each batch?"""
    return len(of_batches(metrics)) < len(metrics)


def of_splits(metrics: Mapping[str, Metric]) -> dict[str, SplitMetric]:
    """The metrics of a whole split."""
    # they stand among the others, which a type checker takes them for
    return {name: cast("SplitMetric", metric) for name, metric in metrics.items() if is_of_split(metric)}


def names_of(name: str, metric: object) -> list[str]:
    """The names of a metric's values: its own, or of several those of its parts."""
    return metric.names(name) if is_state_metric(metric) else [name]


def takes(metric: SplitMetric, argument: str) -> bool:
    """Does a metric of a split ask for "inputs", or for those of "train"?"""
    return argument in signature(metric).parameters


def join(parts: list[Outputs]) -> Outputs:
    """The outputs of a split from those of its batches, in float32 if they are narrower."""
    outputs, y = (torch.cat(each) for each in zip(*parts, strict=True))
    return Outputs(outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs, y)


def inputs_of(split: Split, size: int, device: torch.device) -> Tensor:
    """The prepared inputs of a whole split, on the device."""
    n = len(split)
    chunks = (torch.arange(start, min(start + size, n), device=device) for start in range(0, n, size))
    return torch.cat([split.gather(index).x.to(device) for index in chunks])


def compute(
    metric: SplitMetric, found: Outputs, *, inputs: Tensor | None = None, train: Outputs | None = None
) -> float:
    """A metric's number. Raises TypeError for anything else that it returns."""
    given = {name: value for name, value in (("inputs", inputs), ("train", train)) if takes(metric, name)}
    value: Any = metric(*found, **given)
    if isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()):
        return float(value)
    kind = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    raise TypeError(f"it returned {kind}; expected one number, for it is a metric of a whole split")
