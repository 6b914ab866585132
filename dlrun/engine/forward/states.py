"""Metrics that add up states of their own, as torchmetrics' do, and functions of predictions and targets."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from math import isclose, isfinite, nan
from numbers import Real
from operator import itemgetter
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from dlrun.engine.forward.detections import numbers_of
from dlrun.engine.forward.metric_inputs import MetricInputs
from dlrun.nests.nest import Nest, map_nest, size_of
from dlrun.types import Outputs


class Accumulating(Protocol):
    """The protocol of torchmetrics: states that batches are added to."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""

    def compute(self) -> Any:
        """The value of all batches since `reset`."""

    def reset(self) -> None:
        """Forget all batches."""


class StateMetric:
    """A metric with states, for an evaluation.

    Each evaluation adds to a copy, so nothing of one is in another or in a checkpoint. `parts` are the names of
    several values, added to the metric's own.
    """

    def __init__(self, metric: Accumulating, predictions: MetricInputs) -> None:
        self.metric, self.predictions = metric, predictions
        self.parts: tuple[str, ...] = ()

    @property
    def higher_is_better(self) -> bool | None:
        """The direction that its class declares."""
        declared = getattr(self.metric, "higher_is_better", None)
        return None if declared is None else bool(declared)

    def begin(self) -> Accumulating:
        """A copy without any batch."""
        metric = deepcopy(self.metric)
        metric.reset()
        return metric

    def add(self, metric: Accumulating, found: Outputs) -> None:
        """Add a batch to a copy."""
        metric.update(*self.predictions(found))

    def values(self, name: str, metric: Accumulating) -> dict[str, float]:
        """The numbers of a copy, by name. Raises TypeError for anything but numbers."""
        found = self._read(metric)
        if len(found) == 1 and "" in found:
            return {name: found[""]}
        if len(found) != len(self.parts):
            raise TypeError(f"it returned {len(found)} values, and {len(self.parts)} at first")
        return dict(zip(self.names(name), found.values(), strict=True))

    def to(self, device: torch.device) -> None:
        """Move the states, if it is a module."""
        if isinstance(self.metric, nn.Module):
            self.metric.to(device)

    def _compute(self, batches: Sequence[Outputs]) -> dict[str, float]:
        metric = self.begin()
        for each in batches:
            self.add(metric, each)
        return self._read(metric)

    def _read(self, metric: Accumulating) -> dict[str, float]:
        value = metric.compute()
        return _numbers(numbers_of(value) if self.predictions.detection and isinstance(value, Mapping) else value)

    def names(self, name: str) -> list[str]:
        """The names of its values."""
        return [self._joined(name, part) for part in self.parts] or [name]

    def _joined(self, name: str, part: str) -> str:
        # `map`, `map_50` and so on of torchmetrics' own
        own = self.predictions.detection and (part == name or part.startswith(f"{name}_"))
        return part if own else f"{name}_{part}"

    def rehearse(self, found: Outputs, classes: int | None, class_names: Sequence[str] = ()) -> None:
        """Compute it of a few outputs, and name its parts.

        Raises TypeError if its value depends on the batches, and whatever else it raises.
        """
        chosen, self.predictions = self.predictions, replace(self.predictions, output=None, target=None, function=None)
        try:
            some = Outputs(*chosen(found)) if chosen.detection or chosen.function else chosen.choose(found)
            self._rehearse(some, classes, class_names)
        finally:
            self.predictions = chosen

    def _rehearse(self, found: Outputs, classes: int | None, class_names: Sequence[str]) -> None:
        found = self.predictions.every_class(found, classes)
        size = len(found.y) if isinstance(found.y, list) else size_of(found.y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a few samples lack whatever it warns of
            values = self._compute([found])
            cut = max(1, size // 3)
            portions = (slice(cut), slice(cut, None))
            parts = self._compute([Outputs(*(_rows(nest, some) for nest in found)) for some in portions])
        for name, value in values.items() if size > 1 else ():
            other = parts.get(name, nan)
            if isfinite(value) and not isclose(value, other, rel_tol=1e-3, abs_tol=1e-5):
                raise TypeError(
                    f"of {size} samples it is {value:.6g} updated at once, and {other:.6g} in two portions: it "
                    "would depend on evaluation.batch_size. Let `update` add to states, and `compute` divide them"
                )
        names = [*values]
        if names == [""]:
            self.parts = ()
        elif all(each.isdigit() for each in names) and len(names) == len(class_names):
            self.parts = tuple(re.sub(r"[^\w.-]", "_", each) for each in class_names)
        else:
            self.parts = tuple(names)


class SplitFunction:
    """A function of predictions and targets, as a metric of a whole split.

    With `targets_first` it takes numpy arrays, the targets before the predictions, as scikit-learn's do.
    """

    of_split = True

    def __init__(self, function: Callable[..., Any], predictions: MetricInputs, *, targets_first: bool) -> None:
        self.function, self.targets_first = function, targets_first
        self.predictions = replace(predictions, row=False) if targets_first else predictions
        self.higher_is_better: bool | None = None

    def __call__(self, outputs: Nest, y: Nest) -> Any:
        """The number of all samples."""
        return self.of_predictions(*self.predictions(Outputs(outputs, y)))

    def predict(self, batches: Sequence[Outputs]) -> Outputs | None:
        """The predictions and targets of all batches, whatever their lengths.

        None where it takes the outputs of sequences as they are, or what a function of the user's makes of all of them.
        """
        given = self.predictions
        if (given.of == "outputs" and given.row) or given.function:
            return None
        made, targets = zip(*map(self.predictions, batches), strict=True)
        if not all(isinstance(each, Tensor) for each in (*made, *targets)):
            return None
        return Outputs(torch.cat(made), torch.cat(targets))

    def of_predictions(self, made: Any, target: Any) -> Any:
        """The number of predictions and their targets."""
        if self.targets_first:
            return self.function(target.cpu().numpy(), made.cpu().numpy())
        return self.function(made, target)


def is_state_metric(metric: object) -> TypeGuard[StateMetric]:
    """Does a metric add up states of its own?"""
    return isinstance(metric, StateMetric)


def _rows(nest: Nest, some: slice) -> Nest:
    # a list is one of samples
    return nest[some] if isinstance(nest, list) else map_nest(itemgetter(some), nest)


def _numbers(value: Any) -> dict[str, float]:
    """One number under the name "", several by their places or keys. Raises TypeError for anything else."""
    if isinstance(value, Mapping):
        found = {str(key): _numbers(each) for key, each in value.items()}
        if all([*each] == [""] for each in found.values()):
            return {key: each[""] for key, each in found.items()}
    elif isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1):
        return {"": float(value)}
    elif isinstance(value, Tensor) and value.ndim == 1:
        return {str(place): number for place, number in enumerate(value.tolist())}
    kind = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
    raise TypeError(
        f"it returned {kind}; expected a number, one for each class, or a dictionary of numbers. Curves and matrices "
        "are no metrics: choose their area or mean, for example with average=macro"
    )
