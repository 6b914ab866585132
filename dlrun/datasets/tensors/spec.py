"""The description of a data set for a model, read off its samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlrun.datasets.tensors.checks import check_finite, check_numbered
from dlrun.errors import ConfigError, DataError
from dlrun.types import Spec, Task


def spec_of(
    name: str,
    task: Task,
    x: Tensor,
    y: Tensor,
    *,
    classes: int | None = None,
    class_names: Sequence[str] = (),
) -> Spec:
    """The spec of inputs [N, ...] and targets [N, ...].

    The number of classes is `classes`, else the number of names, else the largest class + 1. Raises `ConfigError` for
    classes of another task and for too many names, `DataError` for classes that are not whole numbers, and for those
    that do not run from 0 on if their number is not given.
    """
    shape = tuple(x.shape[1:])
    if task != "classification":
        if classes is not None or class_names:
            raise ConfigError(f"The data set `{name}` is for {task}, which has no classes.")
        return Spec(task, shape, outputs=y[0].numel() if task == "regression" else 1)
    if y.is_floating_point():
        raise DataError(_whole_numbers_message(name, y))
    # of the training split: a class that only the test has must be given by `classes` or a name
    if not classes and not class_names:
        check_numbered(name, y, int(y.max()) + 1)
    classes = classes or len(class_names) or int(y.max()) + 1
    if class_names and len(class_names) != classes:
        raise ConfigError(f"The data set `{name}` has {classes} classes and {len(class_names)} class names.")
    return Spec(task, shape, outputs=classes, classes=classes, class_names=tuple(class_names))


def targets(name: str, split: str, spec: Spec, y: Tensor) -> Tensor:
    """Targets as a loss takes them.

    Classes are int64 [N], values float32 [N, O], others unchanged. Raises `DataError` for targets that contradict
    `spec`.
    """
    if spec.task == "classification":
        if y.is_floating_point() or y.ndim != 1:
            raise DataError(_whole_numbers_message(name, y))
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= spec.outputs:
            first = int(((y < 0) | (y >= spec.outputs)).nonzero()[0])
            raise DataError(
                f"The classes of `{name}` run from {low} to {high}; expected 0 to {spec.outputs - 1}. The first such "
                f"is of sample {first} of the {split} split."
            )
        return y.to(torch.int64)
    if spec.task == "regression":
        y = y.reshape(len(y), -1)
        if y.shape[1] != spec.outputs:
            raise DataError(
                f"The targets of the {split} split of `{name}` are {list(y.shape)}; expected [N, {spec.outputs}]."
            )
        check_finite(y, f"of the {split} split of `{name}`", "target")
        return y.to(torch.float32)
    return y


def _whole_numbers_message(name: str, y: Tensor) -> str:
    kind = str(y.dtype).removeprefix("torch.")
    advice = ""
    if y.ndim == 2:
        advice = " Type y.argmax(1) for one-hot targets." if y.shape[1] > 1 else " Type y[:, 0]."
    elif y.is_floating_point() and bool((y == y.round()).all()):
        advice = " Type y.long()."
    needed = f"a classification needs whole numbers, [N].{advice}"
    return f"The targets of `{name}` are {kind} of shape {list(y.shape)}; {needed}"
