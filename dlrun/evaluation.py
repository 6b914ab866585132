"""Exact evaluation: sums and counts in float64, divided once, in whatever portions.

A mean of means would depend on how the split was cut; a quotient of totals does not. The same
numbers come out for any batch size, to the rounding of the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from dlrun import metrics as known
from dlrun.objective import Objective
from dlrun.types import Batch, Metric, Split


@dataclass(frozen=True)
class Collected:
    """What the model made of a split, for pictures: inputs, targets and outputs, on the CPU."""

    x: Tensor
    y: Tensor
    output: Tensor


class Memo:
    """A model that remembers its last answers, so that loss and metrics share one forward pass."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._answers: dict[tuple[Any, ...], Any] = {}

    def __call__(self, *inputs: Any) -> Any:
        """Return `model(*inputs)`, computed once."""
        return self._remember("", self._model, inputs)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._model, name)
        if isinstance(value, nn.Module) or not callable(value):
            return value
        return lambda *inputs: self._remember(name, value, inputs)

    def _remember(self, name: str, function: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
        key = (name, *map(id, inputs))
        if key not in self._answers:
            # the inputs are kept too: an id is only unique while its object lives
            self._answers[key] = (function(*inputs), inputs)
        return self._answers[key][0]


def evaluate(
    objective: Objective, metrics: Mapping[str, Metric], split: Split, *, batch_size: int, device: torch.device
) -> dict[str, float]:
    """Return the loss, every metric, and what is derived from them, over the whole split."""
    total = _Totals()
    for batch, model in _passes(objective, split, batch_size, device):
        total.add("loss", loss_total(objective, model, batch))
        for name, metric in metrics.items():
            total.add(name, metric(model, batch))
    return total.means()


def collect(
    objective: Objective, metrics: Mapping[str, Metric], split: Split, *, batch_size: int, device: torch.device
) -> tuple[dict[str, float], Collected]:
    """Return the metrics as `evaluate` does, and what the model answered, from the same one pass."""
    total, seen = _Totals(), []
    for batch, model in _passes(objective, split, batch_size, device):
        total.add("loss", loss_total(objective, model, batch))
        for name, metric in metrics.items():
            total.add(name, metric(model, batch))
        seen.append([t.float().cpu() if t.is_floating_point() else t.cpu() for t in (*batch, model(batch.x))])
    return total.means(), Collected(*(torch.cat(parts) for parts in zip(*seen, strict=True)))


def loss_total(objective: Objective, model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Return the loss as a sum and a count. A loss that gives only the mean counts its samples."""
    values = objective.loss(model, batch)
    if values.ndim == 0:
        return wide(values) * len(batch.x), len(batch.x)
    return wide(values).sum(), values.numel()


def wide(values: Tensor) -> Tensor:
    """Return `values` in float64, on the host where the device has no float64."""
    return (values.cpu() if values.device.type == "mps" else values).double()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, without gradients, and back."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _passes(
    objective: Objective, split: Split, batch_size: int, device: torch.device
) -> Iterator[tuple[Batch, nn.Module]]:
    n = len(split)
    with evaluating(objective.model), objective.precision():
        for start in range(0, n, batch_size):
            x, y = split.gather(torch.arange(start, min(start + batch_size, n), device=device))
            yield Batch(x.to(device), y.to(device)), cast("nn.Module", Memo(objective.model))


class _Totals:
    """Running sums and counts, added on the device and read once."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int | Tensor] = {}

    def add(self, name: str, total: tuple[Tensor, int | Tensor]) -> None:
        value, count = total
        self._sums[name] = self._sums[name] + value if name in self._sums else wide(value)
        self._counts[name] = self._counts.get(name, 0) + count

    def means(self) -> dict[str, float]:
        means = {name: float(value) / float(self._counts[name]) for name, value in self._sums.items()}
        return means | known.derived(means)
