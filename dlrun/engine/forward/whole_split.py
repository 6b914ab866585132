"""Metrics of a whole split: from the outputs of all its samples, or states of their own, not from sums over batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from numbers import Real
from typing import Any, cast

import torch
from torch import Tensor

from dlrun.engine.forward.states import StateMetric, is_state_metric
from dlrun.errors import ConfigError
from dlrun.metrics import is_of_split
from dlrun.nests.nest import Nest, join_nests, map_nest
from dlrun.types import Batch, Metric, Outputs, Split, SplitMetric

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


def unpadded(outputs: Any, batch: Batch) -> tuple[Any, Any]:
    """Outputs and targets; of padded real values the others, [M, ...]. Padded classes are `IGNORE_INDEX`."""
    y, mask = batch.y, batch.mask
    if mask is None or not isinstance(y, Tensor) or not y.is_floating_point() or not isinstance(outputs, Tensor):
        return outputs, y
    axes = mask.ndim
    fits = y.shape[:axes] == mask.shape == outputs.shape[:axes]
    return (outputs[mask], y[mask]) if fits else (outputs, y)


def join(parts: Sequence[Outputs]) -> Outputs:
    """The outputs of a split from those of its batches, in float32 if they are narrower.

    Raises `ConfigError` for sequences that the batches have padded to several lengths.
    """
    outputs, y = (join_nests(_cat, nests) for nests in zip(*parts, strict=True))
    return Outputs(map_nest(_wide, outputs), y)


def _cat(place: str, parts: list[Tensor]) -> Tensor:
    if len(shapes := {str(list(t.shape[1:])) for t in parts}) > 1:
        of = f" `{place}`" if place else ""
        raise ConfigError(
            f"A metric of a whole split takes the outputs of all samples as one tensor; these{of} have several lengths "
            f"({', '.join(sorted(shapes)[:3])}). Give a metric that returns a sum and a count."
        )
    return torch.cat(parts)


def _wide(outputs: Tensor) -> Tensor:
    return outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs


def inputs_of(split: Split, size: int, device: torch.device) -> Nest:
    """The prepared inputs of a whole split, on the device."""
    n = len(split)
    chunks = (torch.arange(start, min(start + size, n), device=device) for start in range(0, n, size))
    return join_nests(_cat, [split.gather(index).to(device).x for index in chunks])


def compute(metric: SplitMetric, found: Outputs, *, inputs: Nest = None, train: Outputs | None = None) -> float:
    """A metric's number. Raises TypeError for anything else that it returns."""
    given = {name: value for name, value in (("inputs", inputs), ("train", train)) if takes(metric, name)}
    value: Any = metric(*found, **given)
    if isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()):
        return float(value)
    kind = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    raise TypeError(f"it returned {kind}; expected one number, for it is a metric of a whole split")
