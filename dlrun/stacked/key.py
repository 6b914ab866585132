"""The key of a run: runs of equal keys can be stacked.

Free to differ are the seed (initial weights, order, augmentation), the learning rate and its schedule, weight decay,
momentum, betas, the bound of clipping, label smoothing, patience, a polynomial's degree, and the samples themselves.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any, cast

import torch
from torch import Tensor, nn

from dlrun.datasets.tensors.fingerprint import fingerprint
from dlrun.engine.loop import Training
from dlrun.engine.objective import Objective
from dlrun.engine.plan import Plan
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.models.polynomial import Polynomial
from dlrun.optimizers.descent import Descent
from dlrun.stacked.losses import of_outputs, split_partial
from dlrun.types import Metric

OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""Attributes of any module: its parameters, buffers, children and hooks."""

CONFIG_KEYS = {
    "precision": "trainer.precision",
    "decoupled": "optimizer.decoupled",
    "nesterov": "optimizer.nesterov",
    "accumulate": "trainer.accumulate",
    "clips": "trainer.clip",
    "batch_size": "trainer.batch_size",
    "drop_last": "trainer.drop_last",
    "classes_per_batch": "trainer.classes_per_batch",
    "overfit_batches": "trainer.overfit_batches",
    "device": "trainer.device",
    "evaluation_batch_size": "evaluation.batch_size",
    "ema": "trainer.ema",
    "plan": "the length or the intervals of trainer",
    "measures_norms": "trainer.log_gradients",
    "samples": "the number of training samples",
    "validation_samples": "the number of validation samples",
}
"""How a person names the fields of `StackKey`; the other fields are configuration groups."""


@dataclass(frozen=True)
class StackKey:
    """The properties shared by all runs of a stack."""

    model: Hashable
    loss: Hashable
    precision: str
    optimizer: type
    decoupled: bool | None
    nesterov: bool | None
    accumulate: int
    clips: str
    measures_norms: bool
    batch_size: int
    samples: int
    drop_last: bool
    classes_per_batch: int | None
    overfit_batches: int | None
    device: torch.device
    plan: Plan
    validation_samples: int | None
    metrics: Hashable
    evaluation_batch_size: int
    ema: float | None

    def difference(self, other: StackKey) -> str | None:
        """The first differing field, with its values if short."""
        for field in fields(self):
            one, another = getattr(self, field.name), getattr(other, field.name)
            if one != another:
                values = f" ({one} and {another})"
                return CONFIG_KEYS.get(field.name, field.name) + (values if len(values) < 60 else "")
        return None


def stack_key(training: Training) -> StackKey:
    """The key of a run, if `why_never` is None."""
    objective, batches = training.objective, training.batches
    optimizer = cast("Descent", training.optimizer)
    return StackKey(
        model=_model(objective, training.metrics),
        loss=_loss(objective),
        precision=repr(objective._autocast),
        optimizer=type(optimizer.rule),
        decoupled=getattr(optimizer.rule, "decoupled", None),
        nesterov=getattr(optimizer.rule, "nesterov", None),
        accumulate=optimizer.accumulate,
        # the bounds themselves may differ
        clips="none" if optimizer.clip is None else "some",
        measures_norms=optimizer.measure_norms,
        batch_size=batches.size,
        samples=len(batches.split),
        drop_last=batches.drop_last,
        classes_per_batch=batches.balance.classes if batches.balance else None,
        overfit_batches=batches.only,
        device=batches.device,
        plan=training.plan,
        validation_samples=None if training.validation is None else len(training.validation),
        metrics=tuple((name, function_key(metric)) for name, metric in training.metrics.items()),
        evaluation_batch_size=training.evaluation_batch_size,
        ema=training.average.decay if training.average else None,
    )


def function_key(function: Any) -> Hashable:
    """Equal for equal functions with equal arguments filled in.

    >>> function_key(partial(max, default=1)) == function_key(partial(max, default=1))
    True
    """
    if isinstance(function, partial):
        return (function_key(function.func), _value_key(function.args), _value_key(function.keywords))
    if isinstance(function, FunctionType | BuiltinFunctionType):
        return function
    return (type(function), _value_key(getattr(function, "__dict__", id(function))))


def _model(objective: Objective, metrics: Mapping[str, Metric]) -> Hashable:
    # a lower degree has the first columns alone; a loss that looks at the coefficients would see those it lacks
    if type(objective.model) is Polynomial and of_outputs(objective.loss, metrics):
        return (Polynomial, tuple(objective.model.coefficients.shape[1:]))
    modules = tuple((name, type(module), _settings(module)) for name, module in objective.model.named_modules())
    return (modules, tuple((tuple(p.shape), p.dtype) for p in objective.params))


def _loss(objective: Objective) -> Hashable:
    function, arguments = split_partial(objective.loss)
    if function is cross_entropy and arguments.get("class_weights") is None:
        arguments.pop("label_smoothing", None)  # `StackedCrossEntropy` has one for each run
    return (function_key(function), _value_key(arguments))


def _settings(module: nn.Module) -> tuple[Hashable, ...]:
    """A module's own attributes and buffers, without weights and children."""
    own = {name: value for name, value in vars(module).items() if name not in OF_EVERY_MODULE}
    buffers = tuple((name, _value_key(buffer)) for name, buffer in module.named_buffers(recurse=False))
    return (_value_key(own), buffers)


def _value_key(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), _value_key(inner)) for name, inner in value.items()))
    if isinstance(value, list | tuple):
        return tuple(map(_value_key, value))
    if isinstance(value, Tensor):
        return fingerprint(value)
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, partial | FunctionType | BuiltinFunctionType):
        return function_key(value)
    return repr((type(value), id(value)))  # an unknown object equals itself alone
