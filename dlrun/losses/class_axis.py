"""The axis of a model's classes, where the shapes of outputs and targets leave axis 1 and the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn


def axis_of(model: nn.Module, output: str | None = None) -> int | None:
    """The axis of the classes in a model's outputs, 1 or -1; None if nothing says it.

    It is the model's attribute `class_axis`: a number, or one for each entry of its outputs by name.

    >>> model = nn.Identity()
    >>> model.class_axis = {"tags": 1}
    >>> axis_of(model, "tags"), axis_of(model)
    (1, None)
    """
    said: Any = getattr(model, "class_axis", None)
    return said.get(output or "") if isinstance(said, Mapping) else said


def on_axis_1(outputs: Sequence[int], y: Sequence[int], axis: int | None) -> bool | None:
    """Are the classes of outputs [B, C, ...] or [B, ..., C] on axis 1, by their shape and that of the targets?

    None if they may be on either one and `axis` does not say it, and if neither fits.

    >>> on_axis_1((2, 5, 3), (2, 3), None), on_axis_1((2, 3, 5), (2, 3), 1), on_axis_1((2, 3, 3), (2, 3), 1)
    (True, False, True)
    """
    ahead = len(outputs) > 1 and (outputs[0], *outputs[2:]) == tuple(y)
    behind = len(outputs) > 1 and tuple(outputs[:-1]) == tuple(y)
    if ahead and behind:
        return None if axis is None else axis == 1
    return ahead if ahead or behind else None
