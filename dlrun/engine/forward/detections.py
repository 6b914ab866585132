"""The boxes of a batch as torchmetrics' metrics of detection take them, and the numbers that these return."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

import torch
from torch import Tensor

from dlrun.errors import ConfigError
from dlrun.nests.nest import Nest
from dlrun.nests.shapes import describe_shapes, shapes_of
from dlrun.types import IGNORE_INDEX

PARTIAL = ("classes", "per_class", "small", "medium", "large")
"""The ends of names of numbers that a split may lack: of single classes, and of sizes of boxes."""


def as_samples(nest: Nest) -> list[dict[str, Tensor]]:
    """A dict for each sample, of a dict of tensors [B, N, ...]; a list of such is taken as it is.

    Without padding, where `labels` are `IGNORE_INDEX`. Raises `ConfigError` for anything else.

    >>> as_samples({"labels": torch.tensor([[3, IGNORE_INDEX]]), "boxes": torch.zeros(1, 2, 4)})[0]["boxes"].shape
    torch.Size([1, 4])
    """
    if isinstance(nest, list | tuple):
        return [{name: _wide(t) for name, t in sample.items()} for sample in nest]
    labels = nest.get("labels") if isinstance(nest, Mapping) else None
    if not isinstance(labels, Tensor):
        given = describe_shapes(shapes_of(nest)) if isinstance(nest, Mapping) else f"a {type(nest).__name__}"
        raise ConfigError(
            f"A metric of detection takes `boxes`, `labels` and of outputs `scores`, [N, …] a sample; here are {given}."
            " Name a function of outputs and targets that returns both so: +metrics.NAME.of._target_=mine.boxes"
        )
    here = labels != IGNORE_INDEX
    return [{name: _wide(t[row][here[row]]) for name, t in nest.items()} for row in range(len(labels))]


def numbers_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of all boxes, without those of single classes and of sizes; NaN for -1, an average over no box.

    >>> numbers_of({"map": torch.tensor(-1.0), "map_50": 0.5, "map_small": 0.5, "classes": torch.tensor([1, 3])})
    {'map': nan, 'map_50': 0.5}
    """
    found = {name: value for name, value in values.items() if not name.endswith(PARTIAL)}
    return {
        name: nan if name.startswith(("map", "mar")) and float(value) == -1 else value for name, value in found.items()
    }


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
