"""Metrics from elsewhere: torchmetrics' classes and functions, scikit-learn's functions, classes of that protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from dlrun.config import instantiate
from dlrun.config.check import split_entries
from dlrun.engine.forward.metric_inputs import OF, Link, MetricInputs, Of
from dlrun.engine.forward.states import SplitFunction, StateMetric
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.losses.class_axis import axis_of
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.entries import OfEntries, of_entries
from dlrun.losses.of_outputs.torch_loss import TorchLoss
from dlrun.losses.weighted_sum import WeightedSum
from dlrun.types import Data, Loss, Metric, Outputs, Spec

KNOWN = {"binary": "positive", "multiclass": "probabilities", "multilabel": "probabilities"}
"""What those of `torchmetrics.classification` take, by the beginnings of their names. They take logits too, but know
them by their values, batch by batch: of logits that lie between 0 and 1 a value would depend on the batch size."""

MEANINGS = (
    "classes (of the highest output), probabilities, positive (the probability of the second of two classes), or "
    "outputs (as the model returns them), or a function of outputs and targets, as +metrics.NAME.of._target_=mine.both"
)


def make_metric(
    name: str, part: Mapping[str, Any], plain: Mapping[str, Any], data: Data, objective: Objective
) -> Metric:
    """Make a metric of the user's, from elsewhere or of a model and a batch.

    Raises `ConfigError` where nobody says what it takes of the predictions.
    """
    target, loss = instantiate.resolve(part["_target_"], trusted=plain["trusted"]), objective.loss
    part, names = split_entries(target, part)
    if not instantiate.takes_predictions(target):
        return cast("Metric", of_entries(instantiate.partial(part, trusted=plain["trusted"]), names))
    given = {key: value for key, value in part.items() if key != "of"}
    if isinstance(target, type):
        sizes: dict[str, Any] = {"num_classes": data.spec.classes, "num_labels": data.spec.outputs}
        made = instantiate.make(given, trusted=plain["trusted"], **sizes)
        # torchmetrics' `F1Score` makes an object of another class, by its task
        predictions = _predictions(name, part, type(made), data.spec, link_of(loss), plain["trusted"])
        return cast("Metric", StateMetric(made, _of_model(predictions.of_entries(names), objective.model)))
    made = instantiate.partial(given, trusted=plain["trusted"])
    predictions = _predictions(name, part, target, data.spec, link_of(loss), plain["trusted"]).of_entries(names)
    predictions = _of_model(predictions, objective.model)
    sklearn = target.__module__.split(".")[0] == "sklearn"
    return cast("Metric", SplitFunction(made, predictions, targets_first=sklearn))


def _of_model(predictions: MetricInputs, model: nn.Module) -> MetricInputs:
    return replace(predictions, axis=axis_of(model, predictions.output))


def rehearse(name: str, metric: StateMetric, data: Data, objective: Objective, device: torch.device) -> None:
    """Name the values of a metric with several, by a few samples; a failure is left to the dry run."""
    index = torch.linspace(0, len(data.train) - 1, min(2, len(data.train))).round().long()
    batch = data.train.gather(index.to(device)).to(device)
    with objective.precision(), torch.no_grad():
        try:
            found = Outputs(objective.model(batch.x), batch.y)
            metric.rehearse(found, data.spec.classes, data.spec.class_names)
        except Exception:
            return


def link_of(loss: Loss) -> Link | None:
    """How outputs become probabilities, by what the loss takes them for; None if it is not known."""
    loss = loss.part if isinstance(loss, OfEntries) else loss
    if isinstance(loss, WeightedSum):
        return next((link for term in loss.terms.values() if (link := link_of(term))), None)
    if getattr(loss, "func", loss) is cross_entropy:
        return "softmax"
    if not isinstance(loss, TorchLoss):
        return None
    if loss.form.targets == "classes" and loss.form.outputs in ("logits", "log-probabilities"):
        return "softmax"
    if loss.form.targets == "zeros and ones":
        return "sigmoid" if loss.form.outputs == "logits" else "none"
    return None


def _predictions(
    name: str, part: Mapping[str, Any], of: Any, spec: Spec, link: Link | None, trusted: Sequence[str]
) -> MetricInputs:
    asked = part.get("of", getattr(of, "of", None))
    target, where = part["_target_"], f"metrics.{name}.of"
    detection = getattr(of, "__module__", "").startswith("torchmetrics.detection.")
    if isinstance(asked, Mapping) or (asked is None and detection):
        function = instantiate.partial(asked, trusted=trusted) if asked else None
        return MetricInputs("outputs", link or "none", function=function, detection=detection)
    if asked is None:
        asked = _usual(of, spec, link)
    if asked is None:
        known = "" if link or spec.task == "regression" else " The loss does not say whether the outputs are logits:"
        raise ConfigError(
            f"{where}: nobody says what {target} takes of the predictions.{known} Type +{where}=classes or another of "
            f"{MEANINGS}."
        )
    if asked not in OF:
        raise ConfigError(f"{where}={asked}: expected {MEANINGS}.")
    if asked == "outputs":
        return MetricInputs("outputs", link or "none")
    labels = spec.task == "regression"
    if labels and link not in ("sigmoid", "none"):
        raise ConfigError(f"{where}={asked}: the targets are real values. Type +{where}=outputs")
    if asked == "positive" and not labels and spec.outputs != 2:
        raise ConfigError(
            f"{where}=positive is the probability of the second of two classes; the data set has {spec.outputs}. Type "
            f"+{where}=probabilities, or a metric of several classes."
        )
    # with a loss of the user's own it was typed: the outputs are taken as logits
    return MetricInputs(cast("Of", asked), link or "softmax")


def _usual(of: Any, spec: Spec, link: Link | None) -> str | None:
    """What is known of a metric's predictions; None if nothing is."""
    if spec.task == "regression" and link is None:
        return "outputs"
    module = getattr(of, "__module__", "")
    if link and module.startswith(("torchmetrics.classification.", "torchmetrics.functional.classification.")):
        start = of.__name__.lower()
        found = next((words for kind, words in KNOWN.items() if start.startswith(kind)), None)
        return "probabilities" if found == "positive" and spec.task == "regression" else found
    return None
