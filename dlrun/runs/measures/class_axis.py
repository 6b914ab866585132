"""The axis of a model's classes, found once: by chance a batch may be as long as there are classes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.engine.evaluation import evaluating
from dlrun.engine.objective import Objective
from dlrun.errors import UserError
from dlrun.losses.class_axis import on_axis_1
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.losses.entries import OfEntries, entry
from dlrun.losses.of_outputs.torch_loss import TorchLoss
from dlrun.losses.weighted_sum import WeightedSum
from dlrun.nests.nest import named_leaves
from dlrun.nests.shapes import shapes_of
from dlrun.randomness import preserve_generators
from dlrun.terminal import output
from dlrun.types import Batch, Data, Loss

FIRST = 16
"""Samples among which two of different lengths are looked for."""


def settle_class_axis(objective: Objective, data: Data, device: torch.device) -> None:
    """Give a model of classes for each element the attribute `class_axis`, unless it has one.

    Of samples of different lengths the classes are on the axis whose size is the same. Where all are as long as there
    are classes, it is the axis that the loss takes, and a line says so.
    """
    model = objective.model
    if data.spec.task not in ("dense", "other") or hasattr(model, "class_axis"):
        return
    samples = _samples(data, device)
    with evaluating(objective), objective.precision(), preserve_generators():
        try:
            found = [dict(named_leaves(model(batch.x))) for batch in samples]
        except Exception:  # the dry run says what is wrong with the model
            return
    axes = _constant(found[0], found[1]) if len(found) > 1 else _said(objective.loss, model, samples[0])
    if axes:
        # a plain attribute: a module keeps tensors and modules apart
        vars(model)["class_axis"] = axes


def _samples(data: Data, device: torch.device) -> list[Batch]:
    """A sample, and another one of another length if there is one."""
    lengths = getattr(data.train, "lengths", None)
    n = min(FIRST, len(data.train))
    places = range(n) if lengths is None else [int(lengths.argmin()), int(lengths.argmax())]
    found: list[Batch] = []
    for place in places:
        try:
            batch = data.train.gather(torch.tensor([place], device=device)).to(device)
        except UserError:  # a sample that does not fit is said where it is read
            continue
        if not found or shapes_of(batch.x) != shapes_of(found[0].x):
            found.append(batch)
        if len(found) == 2:
            break
    return found


def _constant(one: dict[str, Any], other: dict[str, Any]) -> dict[str, int]:
    """Of outputs for inputs of two lengths, the axis that is the same in both, 1 or -1."""
    axes = {}
    for name, tensor in one.items():
        if not isinstance(tensor, Tensor) or tensor.ndim < 3 or other[name].ndim != tensor.ndim:
            continue
        same = [a == b for a, b in zip(tensor.shape, other[name].shape, strict=True)]
        if same[1] != same[-1]:
            axes[name] = 1 if same[1] else -1
    return axes


def _said(loss: Loss, model: nn.Module, batch: Batch) -> dict[str, int]:
    """The axes that the losses of classes take where shapes leave two."""
    axes = {}
    for part, name, target in _of_classes(loss):
        with torch.no_grad():
            outputs, y = entry(model(batch.x), name, "output"), entry(batch.y, target, "target")
        if not isinstance(outputs, Tensor) or not isinstance(y, Tensor) or outputs.ndim < 3 or y.is_floating_point():
            continue
        shapes = outputs.shape, y.shape
        if on_axis_1(*shapes, 1) == on_axis_1(*shapes, -1) or not (isinstance(part, TorchLoss) or y.ndim == 2):
            continue
        axes[name or ""] = axis = 1 if isinstance(part, TorchLoss) else -1
        output.say(
            f"The model returns [B, {', '.join(map(str, outputs.shape[1:]))}] for targets [B, "
            f"{', '.join(map(str, y.shape[1:]))}]: the classes are taken to be {'on axis 1' if axis == 1 else 'last'}. "
            f"If they are not, give it an attribute `class_axis = {-axis}`."
        )
    return axes


def _of_classes(loss: Loss) -> Iterator[tuple[Any, str | None, str | None]]:
    """The losses of classes that a loss is or adds up, with the entries that they are of."""
    if isinstance(loss, WeightedSum):
        for term in loss.terms.values():
            yield from _of_classes(term)
        return
    part, names = (loss.part, (loss.output, loss.target)) if isinstance(loss, OfEntries) else (loss, (None, None))
    function = part.func if isinstance(part, partial) else part
    if function is cross_entropy or (isinstance(part, TorchLoss) and part.form.targets == "classes"):
        yield part, *names
