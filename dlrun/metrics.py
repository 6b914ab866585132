"""Metrics: what a model is judged by, as a float64 sum and a count that are divided once, at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.errors import ConfigError
from dlrun.losses.checked import class_scores, values
from dlrun.types import Batch, Metric, Task


def accuracy(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Return how many class numbers have the highest score, and how many there are."""
    logits, y = class_scores(model, batch)
    return total(logits.argmax(-1) == y), y.numel()


def error(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Return how many class numbers have not the highest score, and how many there are."""
    logits, y = class_scores(model, batch)
    return total(logits.argmax(-1) != y), y.numel()


def top_k(model: nn.Module, batch: Batch, k: int = 5) -> tuple[Tensor, int]:
    """Return how many class numbers are among the `k` highest scores, and how many there are."""
    logits, y = class_scores(model, batch)
    if not 1 <= k <= logits.shape[-1]:
        raise ConfigError(f"The metric top_k was given k={k}; with {logits.shape[-1]} classes it is 1 to that number.")
    return total((logits.topk(k).indices == y.unsqueeze(-1)).any(-1)), y.numel()


def nll(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Return the negative log-likelihood of the class numbers, in nats and unsmoothed, and how many there are."""
    logits, y = class_scores(model, batch)
    return total(F.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="none")), y.numel()


def mse(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Return the squared errors, a sample's the mean over its components, summed, and how many samples there are."""
    outputs, y = values(model, batch)
    return total((outputs - y).square()) / max(1, y[0].numel()), len(y)


def total(each: Tensor) -> Tensor:
    """Return the sum in float64: on the device, or on the host where the device has no float64 (MPS).

    >>> total(torch.tensor([True, False, True]))
    tensor(2., dtype=torch.float64)
    """
    if each.device.type == "mps":
        each = each.cpu()
    return each.sum(dtype=torch.float64)


def for_task(task: Task) -> dict[str, Metric]:
    """Return the metrics that a task is judged by, beside its loss.

    >>> sorted(for_task("classification"))
    ['accuracy', 'error']
    """
    chosen: dict[Task, dict[str, Metric]] = {
        "classification": {"accuracy": accuracy, "error": error},
        "regression": {"mse": mse},
        "language": {"nll": nll, "accuracy": accuracy},
        "density": {},
    }
    return chosen[task]


def derived(means: Mapping[str, float]) -> dict[str, float]:
    """Return what follows from the means once they are divided: the perplexity, exp(nll).

    >>> derived({"nll": 0.0, "accuracy": 0.5})
    {'perplexity': 1.0}
    >>> derived({"accuracy": 0.5})
    {}
    """
    if "nll" not in means:
        return {}
    try:
        return {"perplexity": math.exp(means["nll"])}
    except OverflowError:
        return {"perplexity": math.inf}
