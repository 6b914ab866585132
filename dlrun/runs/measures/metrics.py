"""The metrics of a run: those of its task that its outputs bear, and the user's own."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from dlrun import metrics as known_metrics
from dlrun.engine.evaluation import evaluating
from dlrun.engine.forward.cache import cache_forward
from dlrun.engine.forward.whole_split import names_of, of_splits, of_states, takes
from dlrun.engine.objective import Objective
from dlrun.engine.reading.streams import StreamSplit
from dlrun.errors import ConfigError, did_you_mean
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.mse import mse
from dlrun.losses.nll import is_of_density, nll
from dlrun.losses.of_outputs.torch_loss import TorchLoss
from dlrun.losses.triplet import triplet
from dlrun.metrics import is_of_split
from dlrun.runs.measures.foreign import make_metric, rehearse
from dlrun.runs.measures.loss import terms_of
from dlrun.terminal.format import counted
from dlrun.tracking.mlflow.names.limits import stored_as
from dlrun.types import Batch, Data, Metric, Spec

NO_VALUES = ("logits", "log-probabilities", "scores", "log-rates")
"""What a loss takes outputs for that cannot be subtracted from the targets."""


def make_metrics(
    plain: Mapping[str, Any], data: Data, objective: Objective, *, device: torch.device
) -> tuple[dict[str, Metric], str]:
    """Make the metrics; returns them, and why some of the task's are left out.

    `metrics.NAME=null` takes one of the task's away. Beside a loss of the user's own the outputs may be anything, so
    the task's metrics are tried on a sample first. Raises `ConfigError` for a name that is taken or unknown.
    """
    of_task = known_metrics.for_task(data.spec.task)
    given: Mapping[str, Mapping[str, Any] | None] = plain["metrics"]
    for name in (name for name, part in given.items() if part is None and name not in of_task):
        raise ConfigError(
            f"metrics.{name}=null takes away a metric of the task; `{name}` is none of them."
            f"{did_you_mean(name, of_task)} A {data.spec.task} has: {', '.join(of_task) or 'none'}."
        )
    kept = {name: metric for name, metric in of_task.items() if given.get(name, metric) is not None}
    unfit = _unfit(kept, data, objective, device)
    kept = {name: metric for name, metric in kept.items() if name not in unfit}
    _check_held_out(data, kept)
    if data.spec.task == "embedding" and getattr(objective.loss, "keywords", {}).get("normalise"):
        # distances as the loss takes them
        split = of_splits(kept)
        kept |= {name: cast("Metric", functools.partial(metric, normalise=True)) for name, metric in split.items()}
    kept |= terms_of(objective)
    own = _own(plain, kept, data, objective)
    for name, of_split in of_splits(own).items():
        if takes(of_split, "train") and isinstance(data.train, StreamSplit):
            raise ConfigError(
                f"metrics.{name} compares with the training samples, and those of {data.name} are a stream. Leave it "
                "out."
            )
    for name, metric in of_states(own).items():
        metric.to(device)
        rehearse(name, metric, data, objective, device)
    _check_apart([*kept, *(each for name, metric in own.items() for each in names_of(name, metric))])
    return kept | own, _say(unfit)


def _own(
    plain: Mapping[str, Any], of_task: Mapping[str, Metric], data: Data, objective: Objective
) -> dict[str, Metric]:
    parts = {name: part for name, part in plain["metrics"].items() if part is not None}
    own = {name: make_metric(name, part, plain, data, objective) for name, part in parts.items()}
    means, of_density = dict.fromkeys([*of_task, *own], 0.0), is_of_density(objective.loss)
    taken = {"loss", *of_task, *known_metrics.derive(means, bytes_per_token=1.0, of_density=of_density)}
    for name, metric in own.items():
        if "/" in name:
            raise ConfigError(f"metrics.{name}: a metric's name has no `/`. Call it metrics.{name.replace('/', '_')}.")
        # the same function under its own name may be listed: it changes nothing
        if name in taken and _function(metric) is not _function(of_task.get(name)):
            raise ConfigError(
                f"metrics.{name}: `{name}` is computed anyway, and not by {parts[name]['_target_']}. Give it a name of "
                f"its own, as metrics.my_{name}; taken are: {', '.join(sorted(taken))}."
            )
        if is_of_split(metric) and data.spec.task == "language":
            raise ConfigError(
                f"metrics.{name} is a metric of a whole split; the outputs of a whole text are too many to keep. "
                "Leave it out."
            )
    _check_apart([*sorted(taken - own.keys()), *own])
    return own


def _check_held_out(data: Data, metrics: Mapping[str, Metric]) -> None:
    """Refuse errors of a classifier on classes that it has not seen: it names none of them."""
    held = data.notes.get("held_out_classes")
    if held and (named := [name for name in ("accuracy", "error") if name in metrics]):
        away = " ".join(f"+metrics.{name}=null" for name in named)
        raise ConfigError(
            f"dataset.held_out_classes={held}: no class of the test split is trained on, so every answer of a "
            f"classifier is wrong there. Type loss=triplet +model.outputs=16, or {away} +metric=recall_at_1"
        )


def _function(metric: Metric | None) -> object:
    return getattr(metric, "func", metric)


def _check_apart(names: Sequence[str]) -> None:
    """Raise `ConfigError` for two names that a tracker takes for one, whose curves would be mixed."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(stored_as(name), name)
        if other != name:
            raise ConfigError(
                f"metrics.{name}: to a tracker this name and `{other}` are one, `{stored_as(name)}`. Give names that "
                "differ in letters or digits, and in more than case."
            )


def _unfit(metrics: Mapping[str, Metric], data: Data, objective: Objective, device: torch.device) -> dict[str, str]:
    """The metrics that a sample's outputs do not bear, each with the reason."""
    if getattr(objective.loss, "func", objective.loss) in (cross_entropy, mse, nll, triplet):
        return {}  # these losses ask the same of the outputs, and say what is wrong with them
    loss = objective.loss
    if data.spec.task == "regression" and isinstance(loss, TorchLoss) and loss.form.outputs in NO_VALUES:
        return dict.fromkeys(
            metrics, f"{loss.title} takes the outputs as {loss.form.outputs}, no values of the targets"
        )
    batch, model = data.train.gather(torch.arange(1, device=device)).to(device), objective.model
    with evaluating(model), objective.precision(), cache_forward(model):
        reasons = {name: _why_not(metric, model, batch, data.spec) for name, metric in metrics.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def _why_not(metric: Metric, model: nn.Module, batch: Batch, spec: Spec) -> str:
    try:
        outputs: Any = model(batch.x)
        if not isinstance(outputs, Tensor):
            return f"the model returns a {type(outputs).__name__}, not a tensor"
        if is_of_split(metric):
            return "" if outputs.shape[:1] == batch.y.shape[:1] else "the model returns no row for each sample"
        metric(model, batch)
    except Exception as error:  # a model that is never called, outputs of another shape: whatever it raises
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    whole = isinstance(batch.y, Tensor) and not batch.y.is_floating_point()
    if whole and spec.task != "dense" and outputs.shape[-1] != spec.outputs:
        return f"the model returns {counted(outputs.shape[-1], 'value')} for {spec.outputs} classes"
    return ""


def _say(unfit: Mapping[str, str]) -> str:
    if not unfit:
        return ""
    are = "is" if len(unfit) == 1 else "are"
    return f"{', '.join(unfit)} {are} not computed: {next(iter(unfit.values()))}"
