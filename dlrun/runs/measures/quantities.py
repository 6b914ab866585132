"""The quantities that a run measures: which values are better, and their unit.

Two values can be compared if they have one unit and were measured on the same samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from dlrun import metrics as known_metrics
from dlrun.datasets.columns.encode import EncodeColumns
from dlrun.datasets.tensors.standardise import Standardise
from dlrun.datasets.tensors.subset import bytes_per_token
from dlrun.engine.forward.whole_split import names_of
from dlrun.engine.objective import Objective
from dlrun.losses.nll import is_of_density
from dlrun.losses.own import OwnLoss
from dlrun.metrics import is_of_batch
from dlrun.runs.measures.loss import TermMean
from dlrun.tokenizers.description import cache_key
from dlrun.types import Data, Metric, Quantity

OF_BATCHES = ", over batches of"
"""The unit's addition for values that compare the samples of a batch with each other."""


class Measured(Protocol):
    """The parts of a run that decide what is measured."""

    @property
    def data(self) -> Data:
        """The data set."""

    @property
    def objective(self) -> Objective:
        """The model and the loss."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics by their names."""


def quantities(plain: Mapping[str, Any], parts: Measured, batch_size: int) -> dict[str, Quantity]:
    """The loss, the metrics and what is derived from them, by name without the split.

    `batch_size` is that of an evaluation: a part of the unit where values are of batches.
    """
    data, metrics, objective = parts.data, parts.metrics, parts.objective

    def of_batches(part: object) -> str:
        return f"{OF_BATCHES} {batch_size}" if is_of_batch(part) or is_of_batch(objective.model) else ""

    measure = _token(data) + _measure(data)
    # a loss of the model's own is one quantity among models of one class
    of_model = f" of {plain['model']['_target_']}" if isinstance(objective.loss, OwnLoss) else ""
    found = {
        "loss": Quantity(
            higher_is_better=False,
            unit=_call(_with_weights(plain["loss"], objective))
            + of_model
            + measure
            + _targets(data)
            + of_batches(objective.loss),
        ),
    }
    for name, metric in metrics.items():
        # a task's own metric is listed in no configuration
        own_name = f"{known_metrics.__name__}.{getattr(metric, '__name__', name)}"
        if isinstance(metric, TermMean):
            term = plain["loss"]["terms"][metric.name]
            found[name] = Quantity(higher_is_better=False, unit=_call(term) + measure + _targets(data))
            continue
        own = {"_target_": own_name, **getattr(metric, "keywords", {})}
        unit = _call(plain["metrics"].get(name) or own) + measure + of_batches(metric)
        found |= {
            each: Quantity(higher_is_better=known_metrics.higher_is_better(metric), unit=unit)
            for each in names_of(name, metric)
        }
    known_bytes = bytes_per_token(data.validation) if data.validation else None
    density = is_of_density(objective.loss)
    for name in known_metrics.derive(dict.fromkeys(metrics, 0.0), bytes_per_token=known_bytes, of_density=density):
        unit = "bits a byte" if name == "bits_per_byte" else name + measure
        found[name] = Quantity(higher_is_better=False, unit=unit)
    return found


def are_of_batches(found: Mapping[str, Quantity]) -> bool:
    """Do any of a run's values compare the samples of a batch with each other?"""
    return any(OF_BATCHES in quantity["unit"] for quantity in found.values())


def _token(data: Data) -> str:
    """The addition to the unit of a mean over tokens."""
    if data.spec.task != "language":
        return ""
    if data.tokenizer is None:
        return f", a token of {data.spec.vocabulary}"
    # two tokenizers of one size may cut a text in different ways
    key = hashlib.sha256(cache_key(data.tokenizer).encode()).hexdigest()[:8]
    return f", a token of {data.spec.vocabulary} ({key})"


def _measure(data: Data) -> str:
    """The addition to the unit of a density: it is one of inputs in their unit, or a probability of pixels."""
    if data.spec.task != "density":
        return ""
    if data.spec.levels is not None:
        return f", of pixels of {data.spec.levels} values"
    scale = data.prepare.deviation if isinstance(data.prepare, Standardise | EncodeColumns) else (1.0,)
    return f", of inputs divided by {_short(scale)}"


def _targets(data: Data) -> str:
    """The addition to the unit of a loss of scaled targets."""
    scale = data.spec.target_scale
    return f", of targets divided by {_short(scale[1])}" if scale else ""


def _with_weights(loss: Mapping[str, Any], objective: Objective) -> dict[str, Any]:
    """The loss with the weights of its classes, which may be those of the data."""
    found = getattr(objective.loss, "keywords", {}).get("class_weights")
    rest = {key: value for key, value in loss.items() if key != "class_weights"}
    return rest if found is None else rest | {"class_weights": _short([float(weight) for weight in found])}


def _short(values: Sequence[float]) -> str:
    """A few numbers, or the hash of many."""
    each = ", ".join(f"{value:.6g}" for value in values)
    return each if len(values) <= 4 else hashlib.sha256(each.encode()).hexdigest()[:8]


def _call(part: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{name}={value}" for name, value in sorted(part.items()) if name != "_target_")
    return f"{part['_target_']}({arguments})"
