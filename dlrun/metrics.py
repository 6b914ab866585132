"""Metrics: a float64 sum and a count over a batch, divided once, after the last batch; or a number of a whole split.

Metrics of classes take logits [B, C] and classes [B], or [B, T, C] and [B, T], and leave out targets `IGNORE_INDEX`.
They raise `ConfigError` for outputs and targets that do not fit. Those of a split (`types.SplitMetric`) compare its
samples with each other.

A metric says by an attribute `higher_is_better` which of two values is the better one, as in torchmetrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.errors import ConfigError
from dlrun.losses.distances import nearest
from dlrun.losses.mse import of_elements
from dlrun.losses.nll import nll as of_density
from dlrun.losses.outputs import logits_and_classes, outputs_and_targets
from dlrun.types import IGNORE_INDEX, Batch, Metric, Outputs, SplitMetric, Task

__all__ = [
    "accuracy",
    "bits_per_dimension",
    "density_nll",
    "error",
    "exact_match",
    "knn_accuracy",
    "mse",
    "nll",
    "recall_at_1",
    "recall_at_1_of_inputs",
    "top_k",
]

MANY = 1000
"""From this many classes on, `amax` before `argmax` is faster on a CPU."""


M = TypeVar("M", bound=Metric | SplitMetric)


def declare(*, higher_is_better: bool, of_split: bool = False) -> Callable[[M], M]:
    """Say of a metric which values are the better ones, and whether it is one of a whole split."""

    def mark(metric: M) -> M:
        setattr(metric, "higher_is_better", higher_is_better)  # noqa: B010  # a function's type has no attributes
        setattr(metric, "of_split", of_split)  # noqa: B010
        return metric

    return mark


def higher_is_better(metric: Metric) -> bool | None:
    """The direction that a metric declares; None if it declares none.

    >>> higher_is_better(accuracy), higher_is_better(error), higher_is_better(lambda model, batch: (batch.y, 1))
    (True, False, None)
    """
    # a metric with arguments is a partial: its attribute is on the function inside
    declared = getattr(getattr(metric, "func", metric), "higher_is_better", None)
    return None if declared is None else bool(declared)


def is_of_batch(part: object) -> bool:
    """Does a loss, a metric or a model say by an attribute `of_batch` that its values are of batches?

    Such a value compares the samples of a batch with each other: it has no exact mean over a split.
    """
    return bool(getattr(getattr(part, "func", part), "of_batch", False))


def is_of_split(metric: object) -> bool:
    """Does a metric say by an attribute `of_split` that it is a number of a whole split (`types.SplitMetric`)?

    >>> is_of_split(recall_at_1), is_of_split(accuracy)
    (True, False)
    """
    return bool(getattr(getattr(metric, "func", metric), "of_split", False))


@declare(higher_is_better=True)
def accuracy(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Targets with the highest logit: (their number, all)."""
    logits, y = logits_and_classes(model, batch)
    return total(correct(logits, y)), count(y)


@declare(higher_is_better=False)
def error(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """1 - accuracy: (targets without the highest logit, all)."""
    logits, y = logits_and_classes(model, batch)
    return total(~correct(logits, y) & (y != IGNORE_INDEX)), count(y)


@declare(higher_is_better=True)
def exact_match(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Samples all of whose targets have the highest logit: (their number, those with a target).

    Of a model that writes a target token by token, each from those before it, it is the share of samples for which it
    writes the target itself, if it always takes the likeliest token.
    """
    logits, y = logits_and_classes(model, batch)
    counted = y != IGNORE_INDEX
    whole = (correct(logits, y) | ~counted).flatten(1).all(1) if y.ndim > 1 else correct(logits, y)
    some = counted.flatten(1).any(1) if y.ndim > 1 else counted
    return total(whole & some), some.sum()


@declare(higher_is_better=True)
def top_k(model: nn.Module, batch: Batch, k: int = 5) -> tuple[Tensor, Tensor]:
    """Targets among the `k` highest logits: (their number, all).

    Raises `ConfigError` for k below 1 or above the number of classes.
    """
    logits, y = logits_and_classes(model, batch)
    if not 1 <= k <= logits.shape[-1]:
        classes = logits.shape[-1]
        raise ConfigError(
            f"top_k has k={k}, expected 1 to {classes}, the number of classes. "
            f"Type for example `metrics.top_k.k={min(2, classes - 1) or 1}`."
        )
    return total((logits.topk(k).indices == y.unsqueeze(-1)).any(-1)), count(y)


@declare(higher_is_better=False)
def nll(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood in nats, never smoothed: (sum, number)."""
    logits, y = logits_and_classes(model, batch)
    each = F.cross_entropy(logits.flatten(0, -2), y.flatten(), ignore_index=IGNORE_INDEX, reduction="none")
    return total(each), count(y)


@declare(higher_is_better=False)
def mse(model: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor]:
    """Mean squared error of samples, of padded sequences that of their elements: (sum, number).

    A sample's is the mean over its components.
    """
    outputs, y = outputs_and_targets(model, batch)
    if batch.mask is not None:
        return total(of_elements(outputs, y, batch.mask)[batch.mask]), batch.mask.sum()
    return total((outputs - y).square()) / max(1, y[0].numel()), len(y)


@declare(higher_is_better=False)
def density_nll(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Negative log-likelihood of the inputs, in nats a sample: (sum, number)."""
    return total(of_density(model, batch)), len(batch.x)


@declare(higher_is_better=False)
def bits_per_dimension(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Negative log-likelihood in bits, a component of the input: (sum, number of samples).

    Of a density, and not of probabilities, it is relative to the unit of the prepared inputs, and may be negative.
    """
    return total(of_density(model, batch)) / (math.log(2) * max(1, batch.x[0].numel())), len(batch.x)


@declare(higher_is_better=True, of_split=True)
def recall_at_1(outputs: Tensor, y: Tensor, normalise: bool = False) -> Tensor:
    """Share of samples whose nearest other sample of the split is of their class (Oh Song et al. 2016).

    By the Euclidean distance of the outputs [N, ...], divided by their norms with `normalise`. A sample that is alone
    in its class does not count; NaN if none is left.

    >>> recall_at_1(torch.tensor([[0.0], [1.0], [3.0], [3.5], [9.0]]), torch.tensor([0, 0, 1, 0, 2]))
    tensor(0.6667, dtype=torch.float64)
    """
    if len(y) < 2:
        return torch.tensor(math.nan)
    y = y.cpu()
    same = y[nearest(_points(outputs, normalise))[:, 0].cpu()] == y
    return same[y.bincount()[y] > 1].double().mean()


@declare(higher_is_better=True, of_split=True)
def recall_at_1_of_inputs(outputs: Tensor, y: Tensor, inputs: Tensor, normalise: bool = False) -> Tensor:
    """`recall_at_1` of the prepared inputs themselves, such as pixels: an embedding should be better."""
    return recall_at_1(inputs, y, normalise)


@declare(higher_is_better=True, of_split=True)
def knn_accuracy(outputs: Tensor, y: Tensor, train: Outputs, k: int = 5, normalise: bool = False) -> Tensor:
    """Share of samples whose class most of their `k` nearest training samples have.

    The nearest are those by the Euclidean distance of the outputs, divided by their norms with `normalise`; of classes
    with as many votes it is the first, as in scikit-learn. Fewer training samples than k vote all. NaN if
    the training split has none of these classes. Raises `ConfigError` for k below 1.
    """
    if k < 1:
        raise ConfigError(f"metrics.knn_accuracy.k={k}: expected 1 or more. Type for example metrics.knn_accuracy.k=5")
    places = nearest(_points(outputs, normalise), _points(train.outputs, normalise), k=k)
    if not torch.isin(y.cpu(), train.y.cpu()).any():
        return torch.tensor(math.nan)
    classes: Tensor = train.y.to(places.device)[places]
    votes = classes.new_zeros(len(classes), int(train.y.max()) + 1).scatter_add_(1, classes, torch.ones_like(classes))
    return (votes.argmax(1) == y.to(places.device)).double().mean()


def _points(outputs: Tensor, normalise: bool) -> Tensor:
    rows = outputs.flatten(1).float()
    return F.normalize(rows, dim=1) if normalise else rows


def correct(logits: Tensor, y: Tensor) -> Tensor:
    """True for targets with the highest logit, bool [...].

    Of equal logits the first counts, as in `argmax`.

    >>> correct(torch.tensor([[0.1, 0.9], [0.5, 0.5]]), torch.tensor([1, 1]))
    tensor([ True, False])
    """
    if logits.device.type != "cpu" or logits.shape[-1] < MANY:  # elsewhere the detour below does not pay
        return logits.argmax(-1) == y
    # A CPU finds the highest of many logits several times faster than its place. So `argmax` runs only
    # where no logit is above the target's.
    own = logits.gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    undecided = ~(own < logits.amax(-1))  # true for NaN too, which `==` would miss
    found = torch.zeros_like(undecided)
    found[undecided] = logits[undecided].argmax(-1) == y[undecided]
    return found


def count(y: Tensor) -> Tensor:
    """The number of targets other than `IGNORE_INDEX`, on their device.

    >>> count(torch.tensor([[3, 0], [1, IGNORE_INDEX]]))
    tensor(3)
    """
    return (y != IGNORE_INDEX).sum()


def total(each: Tensor) -> Tensor:
    """The sum in float64, on the device.

    >>> total(torch.tensor([True, False, True]))
    tensor(2., dtype=torch.float64)
    """
    if each.device.type == "mps":  # it has no float64
        each = each.cpu()
    return each.sum(dtype=torch.float64)


def for_task(task: Task) -> dict[str, Metric]:
    """The metrics of a task, beside its loss.

    >>> sorted(for_task("classification"))
    ['accuracy', 'error']
    """
    metrics: dict[Task, dict[str, Metric]] = {
        "classification": {"accuracy": accuracy, "error": error},
        "regression": {"mse": mse},
        "language": {"nll": nll, "accuracy": accuracy},
        "density": {"nll": density_nll, "bits_per_dimension": bits_per_dimension},
        "embedding": {"recall_at_1": cast("Metric", recall_at_1)},
        "dense": {"accuracy": accuracy, "error": error},
        "other": {},
    }
    return metrics[task]


def derive(
    means: Mapping[str, float], *, bytes_per_token: float | None = None, of_density: bool = False
) -> dict[str, float]:
    """Perplexity and bits per byte, if the means have an nll; of a density neither has a meaning.

    The perplexity is exp(nll). Bits per byte are nll / (ln 2 · bytes per token), with `bytes_per_token` the mean
    length of a predicted token in UTF-8. They compare tokenizers; the perplexity, of a token, does not.

    >>> derive({"nll": 0.0, "accuracy": 0.5})
    {'perplexity': 1.0}
    >>> derive({"nll": 2 * math.log(2)}, bytes_per_token=4.0)
    {'perplexity': 4.0, 'bits_per_byte': 0.5}
    >>> derive({"accuracy": 0.5})
    {}
    """
    if "nll" not in means or of_density:
        return {}
    nll = means["nll"]
    try:
        found = {"perplexity": math.exp(nll)}
    except OverflowError:
        found = {"perplexity": math.inf}
    return found if bytes_per_token is None else found | {"bits_per_byte": nll / (math.log(2) * bytes_per_token)}
