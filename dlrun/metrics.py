"""Metrics: what a model is judged by, as a float64 sum and a count that are divided once, at the end.

Of class numbers those are counted that are to be predicted: not the `IGNORE_INDEX` ones of a text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlrun.errors import ConfigError
from dlrun.losses.outputs import logits_and_classes, outputs_and_targets
from dlrun.types import IGNORE_INDEX, Batch, Metric, Task

__all__ = ["accuracy", "error", "mse", "nll", "top_k"]

MANY = 1000
"""Classes from which on it pays to look for the highest score before its place."""


def accuracy(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return how many class numbers have the highest score, and how many there are."""
    logits, y = logits_and_classes(model, batch)
    return total(correct(logits, y)), count(y)


def error(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return how many class numbers have not the highest score, and how many there are."""
    logits, y = logits_and_classes(model, batch)
    return total(~correct(logits, y) & (y != IGNORE_INDEX)), count(y)


def top_k(model: nn.Module, batch: Batch, k: int = 5) -> tuple[Tensor, Tensor]:
    """Return how many class numbers are among the `k` highest scores, and how many there are."""
    logits, y = logits_and_classes(model, batch)
    if not 1 <= k <= logits.shape[-1]:
        raise ConfigError(f"The metric top_k was given k={k}; with {logits.shape[-1]} classes it is 1 to that number.")
    return total((logits.topk(k).indices == y.unsqueeze(-1)).any(-1)), count(y)


def nll(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the negative log-likelihood of the class numbers, in nats and unsmoothed, and how many there are."""
    logits, y = logits_and_classes(model, batch)
    each = F.cross_entropy(logits.flatten(0, -2), y.flatten(), ignore_index=IGNORE_INDEX, reduction="none")
    return total(each), count(y)


def mse(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Return the squared errors, a sample's the mean over its components, summed, and how many samples there are."""
    outputs, y = outputs_and_targets(model, batch)
    return total((outputs - y).square()) / max(1, y[0].numel()), len(y)


def correct(logits: Tensor, y: Tensor) -> Tensor:
    """Return where a class number has the highest score, the first of those that share it, as `argmax` finds it.

    Of many classes a processor finds the highest score several times faster than its place. So the place is looked
    for only where no score is above that of the class number.

    >>> correct(torch.tensor([[0.1, 0.9], [0.5, 0.5]]), torch.tensor([1, 1]))
    tensor([ True, False])
    """
    if logits.device.type != "cpu" or logits.shape[-1] < MANY:
        return logits.argmax(-1) == y
    own = logits.gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    undecided = ~(own < logits.amax(-1))  # not `equal`: what is not a number is left to argmax too
    found = torch.zeros_like(undecided)
    found[undecided] = logits[undecided].argmax(-1) == y[undecided]
    return found


def count(y: Tensor) -> Tensor:
    """Return how many class numbers are to be predicted; it stays on the device.

    >>> count(torch.tensor([[3, 0], [1, IGNORE_INDEX]]))
    tensor(3)
    """
    return (y != IGNORE_INDEX).sum()


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


def derive(means: Mapping[str, float], *, bytes_per_token: float | None = None) -> dict[str, float]:
    """Return what follows from the means once they are divided: the perplexity exp(nll), and bits per byte.

    `bytes_per_token` is how much of the text, in UTF-8, a predicted token of it stands for on average. The
    bits of a byte, nll / (ln 2 · bytes per token), compare tokenizers, which the perplexity of a token does not.

    >>> derive({"nll": 0.0, "accuracy": 0.5})
    {'perplexity': 1.0}
    >>> derive({"nll": 2 * math.log(2)}, bytes_per_token=4.0)
    {'perplexity': 4.0, 'bits_per_byte': 0.5}
    >>> derive({"accuracy": 0.5})
    {}
    """
    if "nll" not in means:
        return {}
    nll = means["nll"]
    try:
        found = {"perplexity": math.exp(nll)}
    except OverflowError:
        found = {"perplexity": math.inf}
    return found if bytes_per_token is None else found | {"bits_per_byte": nll / (math.log(2) * bytes_per_token)}
