"""The loss of a run: PyTorch's as one of a model and a batch, with weights of its data set's classes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from dlrun.config import instantiate
from dlrun.config.check import split_entries
from dlrun.engine.batches import LoaderSplit
from dlrun.engine.evaluation import evaluating
from dlrun.engine.forward.totals import Total, loss_total
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.losses.class_axis import axis_of
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.entries import OfEntries, entry, of_entries
from dlrun.losses.of_outputs.adapt import adapt
from dlrun.losses.of_outputs.fitting import check_values
from dlrun.losses.of_outputs.torch_loss import TorchLoss
from dlrun.losses.outputs import logits_and_classes
from dlrun.losses.own import OwnLoss
from dlrun.losses.weighted_sum import WeightedSum
from dlrun.terminal.format import counted
from dlrun.types import IGNORE_INDEX, Batch, Data, Loss, Metric, Spec

SAMPLES = 8
"""Samples whose outputs and targets are looked at."""


def make_loss(plain: Mapping[str, Any], data: Data, device: torch.device) -> Loss:
    """Make the loss, its tensors on the device.

    Raises `ConfigError` for weights that are not one a class, and for `balanced` without the classes at hand.
    """
    return _make(plain["loss"], plain, data, device)


def _make(given: Mapping[str, Any], plain: Mapping[str, Any], data: Data, device: torch.device) -> Loss:
    """A loss, its weights checked and on the device; of a sum each term."""
    target = instantiate.resolve(given["_target_"], trusted=plain["trusted"])
    part, names = split_entries(target, given)
    if target is WeightedSum:
        terms = {name: _make(term, plain, data, device) for name, term in part["terms"].items()}
        return of_entries(WeightedSum(terms, part.get("weights")), names)
    made = instantiate.partial(part, trusted=plain["trusted"])
    loss = adapt(made, last=data.spec.task == "language")
    if isinstance(loss, OwnLoss) and loss.shift is None and data.spec.task == "language":
        raise ConfigError(
            "loss=own of a text: its targets are the next tokens. A causal model of Hugging Face compares each output "
            "with the next label itself, so that they would be shifted twice. Type loss.shift=true for such a model, "
            "loss.shift=false for one that compares them as they are."
        )
    if isinstance(loss, TorchLoss):
        if loss.form.weighted:
            _check_weights("weight", loss.arguments.get("weight"), data, names.get("target"))
        loss.to(device)
    elif isinstance(loss, functools.partial) and loss.func is cross_entropy:
        loss = _with_class_weights(loss, data, device, names.get("target"))
    return of_entries(loss, names)


class TermMean:
    """The mean of a term of a sum, as a metric."""

    higher_is_better = False

    def __init__(self, loss: WeightedSum, name: str) -> None:
        self.sum, self.name = loss, name

    @property
    def loss(self) -> Loss:
        """The term."""
        return self.sum.terms[self.name]

    def __call__(self, model: nn.Module, batch: Batch) -> Total:
        """The sum and the count of its values."""
        return loss_total(self.loss, model, batch)


def terms_of(objective: Objective) -> dict[str, Metric]:
    """The means of the terms of a sum by name, `loss_NAME`; of scaled targets none, for a metric sees the raw ones."""
    loss = objective.loss
    if not isinstance(loss, WeightedSum) or objective.target_scale is not None:
        return {}
    return {f"loss_{name}": TermMean(loss, name) for name in loss.terms}


def check_loss(objective: Objective, data: Data, device: torch.device) -> None:
    """Raise `ConfigError` for a loss of PyTorch that means nothing of a few samples' outputs and targets.

    Such as log-probabilities that are none, and fewer logits than classes: torch computes a number all the same.
    """
    index = torch.linspace(0, len(data.train) - 1, min(SAMPLES, len(data.train))).round().long()
    losses = [names for names in _terms(objective.loss) if isinstance(names.part, TorchLoss) or _class_weights(names)]
    batch = data.train.gather(index.to(device)).to(device) if losses else None
    for names in losses:
        assert batch is not None
        if isinstance(names.part, TorchLoss):
            _check_torch_loss(names.part, names, objective, batch, data.spec)
        else:
            _check_class_weights(names, objective, batch)


def _terms(loss: Loss) -> Iterator[OfEntries]:
    """The losses that a loss is or adds up, with the entries that they are of."""
    if isinstance(loss, WeightedSum):
        for term in loss.terms.values():
            yield from _terms(term)
        return
    yield loss if isinstance(loss, OfEntries) else OfEntries(loss)


def _class_weights(names: OfEntries) -> bool:
    part: Any = names.part
    given = isinstance(part, functools.partial) and part.func is cross_entropy
    return given and part.keywords.get("class_weights") is not None


def _check_class_weights(names: OfEntries, objective: Objective, batch: Batch) -> None:
    part, model, seen = names.opened(objective.model, batch)
    with evaluating(objective), objective.precision():
        try:
            logits, _ = logits_and_classes(model, seen)
        except Exception:  # the dry run says what is wrong with the model
            return
    _check_length("class_weights", part.keywords["class_weights"], logits.shape[-1], names)


def _check_length(key: str, weights: Tensor | None, classes: int, names: OfEntries) -> None:
    if weights is not None and len(weights) != classes:
        of = f" for the target `{names.target}`" if names.target else ""
        raise ConfigError(
            f"loss.{key} has {counted(len(weights), 'number')}; the model returns {counted(classes, 'value')}{of}. "
            f"Give {classes} numbers, one a class."
        )


def _check_torch_loss(loss: TorchLoss, names: OfEntries, objective: Objective, batch: Batch, spec: Spec) -> None:
    y = entry(batch.y, names.target, "target")
    with evaluating(objective), objective.precision():
        try:
            outputs = objective.model(batch.x)
        except Exception:  # the dry run says what is wrong with the model
            return
        outputs = entry(outputs, names.output, "output")
        outputs, y = loss.fit(outputs, y, axis_of(objective.model, names.output))
        check_values(loss.form, outputs, y.exp() if loss.arguments.get("log_target") else y, loss.title)
    if loss.form.targets != "classes" or loss.title.lower().startswith("multilabel"):
        return
    given = outputs.shape[1]
    if loss.form.weighted:
        _check_length("weight", loss.arguments.get("weight"), given, names)
    # a language model may have more logits than tokens: vocabularies are rounded up for speed. Of entries nobody knows
    # how many classes each has
    known = None if names.target is not None else spec.classes
    if known and (given < known or (given > known and spec.task == "classification")):
        raise ConfigError(
            f"The model returns {counted(given, 'value')} for the {known} classes of the data set. Leave "
            "model.outputs to the data set, or give the model as many outputs as there are classes."
        )


def _with_class_weights(loss: functools.partial[Any], data: Data, device: torch.device, target: str | None) -> Loss:
    given = loss.keywords.get("class_weights")
    if given is None:
        return loss
    weights = balanced(data, target) if given == "balanced" else torch.tensor(given, dtype=torch.float32)
    _check_weights("class_weights", weights, data, target)
    if loss.keywords.get("label_smoothing") and bool((weights == 0).any()):
        raise ConfigError("loss.class_weights has a 0 and loss.label_smoothing is given: their mean is undefined.")
    return cast("Loss", functools.partial(loss.func, **{**loss.keywords, "class_weights": weights.to(device)}))


def _check_weights(key: str, weights: Tensor | None, data: Data, target: str | None) -> None:
    if weights is None:
        return
    # how many classes an entry has, the model's outputs show
    classes = None if target is not None else data.spec.classes or data.spec.vocabulary
    if classes is not None and list(weights.shape) != [classes]:
        raise ConfigError(
            f"loss.{key} has the shape {list(weights.shape)}; the data set {data.name} has {classes} classes. "
            f"Give {classes} numbers, one a class."
        )
    if not bool((weights >= 0).all()) or not bool(weights.isfinite().all()) or not bool(weights.any()):
        raise ConfigError(f"loss.{key}: expected finite numbers of at least 0, one of them above.")


def balanced(data: Data, target: str | None = None) -> Tensor:
    """The weight n / (k · n_c) of each of k classes, float32 [k]: as scikit-learn's `compute_class_weight`.

    n and n_c are counts of the training split. Raises `ConfigError` for a class without a training sample, and for a
    data set whose classes are not at hand.
    """
    classes, split = data.spec.classes, data.train
    if classes is None or isinstance(split, LoaderSplit):
        why = "has no classes" if classes is None else "is read sample by sample, so nothing counts its classes"
        raise ConfigError(
            f"loss.class_weights=balanced: the data set {data.name} {why}. Give a list, loss.class_weights=[1,2,…]"
            if classes
            else f"loss.class_weights=balanced: the data set {data.name} {why}. Leave it out."
        )
    y: Tensor = entry(split.gather(torch.arange(len(split))).y, target, "target")
    counts = y[y != IGNORE_INDEX].bincount(minlength=classes).double()
    if missing := (counts == 0).nonzero()[:, 0].tolist():
        raise ConfigError(
            f"loss.class_weights=balanced: class {missing[0]} of {data.name} has no training sample, so no weight. "
            "Give a list, loss.class_weights=[1,2,…]"
        )
    return (counts.sum() / (classes * counts)).float()
