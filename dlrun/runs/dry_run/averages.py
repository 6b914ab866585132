"""Averages that must not depend on the size of the batches in which a split is evaluated.

Evaluation adds up sums and counts. A mean that weights its samples, or compares those of a batch with each other, is
no such sum: evaluated in two portions it is another number. It is found by doing just that.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from dlrun import metrics as known_metrics
from dlrun.engine.evaluation import evaluating, totals
from dlrun.engine.forward.totals import mean_of_totals
from dlrun.engine.forward.whole_split import of_batches
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.metrics import is_of_batch
from dlrun.randomness import key, seed_libraries
from dlrun.runs.dry_run.masks import check_mask
from dlrun.types import Batch, Metric

SAMPLES = 8
"""Samples to evaluate, together and in two portions."""
EXACT, ROUGH = 1e-4, 3e-2
"""Relative differences that rounding makes, in single precision on a CPU and elsewhere."""
TINY = 1e-6
"""A difference of means that is none, of values near zero."""


def check_averages(
    objective: Objective, metrics: Mapping[str, Metric], batch: Batch, targets: Mapping[str, str]
) -> None:
    """Raise `ConfigError` for a loss or metric whose average depends on the batch size.

    A part with a true attribute `of_batch` is one whose values are of batches. Nor may padding have a part in one.
    """
    check_mask(objective, metrics, batch, targets)
    if is_of_batch(objective.model) or batch.size < 2:
        return
    metrics = of_batches(metrics)  # those of a split are computed once
    cut = (3 * batch.size) // 8 or 1
    portions = [batch.rows(slice(cut)), batch.rows(slice(cut, None))]
    with evaluating(objective):
        whole = totals(objective, metrics, batch)
        found = [totals(objective, metrics, portion) for portion in portions]
        differing = {
            name: (mean_of_totals([total]), mean_of_totals([portion[name] for portion in found]))
            for name, total in whole.items()
            if not _own(name, objective, metrics)
        }
        differing = {
            name: means for name, means in differing.items() if not _same(*means, _tolerance(objective, batch))
        }
        if not differing or _is_random(objective, metrics, batch, [*differing]):
            return
        of_model = _outputs_differ(objective, batch, cut)
    name, means = next(iter(differing.items()))
    text = _message(name, means, (cut, batch.size - cut), targets, of_model=of_model)
    # the commonest slip: the means of the portions, as they are, add up to that of the whole
    if name == "loss" and _same(means[0], sum(mean_of_totals([portion[name]]) for portion in found), ROUGH):
        text = f"{text.splitlines()[0]}\nIt looks like a sum over the batch. Return the samples' mean, or a value each."
    raise ConfigError(text)


def _own(name: str, objective: Objective, metrics: Mapping[str, Metric]) -> bool:
    """Is the average exact by itself, or said to be of batches?"""
    part: Any = objective.loss if name == "loss" else metrics[name]
    function = getattr(part, "func", part)
    return is_of_batch(part) or (name != "loss" and getattr(function, "__module__", "") == known_metrics.__name__)


def _same(one: float, other: float, tolerance: float) -> bool:
    # a step at too high a rate gives no numbers: nothing can be said of them
    if not (isfinite(one) and isfinite(other)):
        return True
    return abs(one - other) <= tolerance * max(abs(one), abs(other)) + TINY


def _tolerance(objective: Objective, batch: Batch) -> float:
    return EXACT if batch.tensors()[0].device.type == "cpu" and objective.exact else ROUGH


def _is_random(objective: Objective, metrics: Mapping[str, Metric], batch: Batch, names: list[str]) -> bool:
    """Does the same evaluation give other values under another seed?"""
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(key(seed, 0))
        seed_libraries(key(seed, 0))
        found = totals(objective, metrics, batch)
        drawn.append([mean_of_totals([found[name]]) for name in names])
    return drawn[0] != drawn[1]


def _outputs_differ(objective: Objective, batch: Batch, cut: int) -> bool:
    try:
        with objective.precision():
            whole, part = objective.model(batch.x), objective.model(batch.rows(slice(cut)).x)
    except Exception:  # a model that the loss calls in another way
        return False
    if not (isinstance(whole, Tensor) and isinstance(part, Tensor)):
        return False
    return not torch.allclose(whole[:cut].float(), part.float(), rtol=ROUGH, atol=1e-3, equal_nan=True)


def _message(
    name: str, means: tuple[float, float], sizes: tuple[int, int], targets: Mapping[str, str], *, of_model: bool
) -> str:
    kind = "model" if of_model else name if name == "loss" else f"metrics.{name}"
    text = (
        f"{kind}={targets[kind]}: the {name} of {sum(sizes)} samples is {means[0]:.6g} evaluated at once, and "
        f"{means[1]:.6g} evaluated as {sizes[0]} and {sizes[1]}. So it would depend on evaluation.batch_size.\n"
    )
    if of_model:
        return text + (
            "The model's outputs for a sample depend on the other samples (as with a batch norm without running "
            "statistics). If they are meant to, set its attribute `of_batch = True`."
        )
    if name == "loss":
        text += (
            "A loss returns one value a sample, or their plain mean. Instead of a weighted mean return the values and "
            "their weights, a pair:\n"
            '  return F.cross_entropy(model(batch.x), batch.y, reduction="none"), weight[batch.y]\n'
        )
    else:
        text += "A metric returns a sum over the batch's samples and their number (or the sum of their weights).\n"
    return text + (
        "A value that compares the samples of a batch with each other is no such mean: set the function's attribute "
        "`of_batch = True`, and it is averaged over batches of evaluation.batch_size."
    )
