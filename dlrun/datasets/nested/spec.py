"""The spec of nested samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from dlrun.datasets.tensors.spec import spec_of
from dlrun.errors import ConfigError, DataError
from dlrun.nests.batch import Batch
from dlrun.nests.nest import leaves
from dlrun.nests.shapes import describe_shapes, shapes_of
from dlrun.types import Spec, Task


def nested_spec(
    name: str,
    task: Task,
    batch: Batch,
    *,
    classes: int | None = None,
    outputs: int | None = None,
    class_names: Sequence[str] = (),
) -> Spec:
    """The spec of some samples; those of `dense` and `other` tasks may be one tensor too.

    `outputs` is 0 where nothing says them. Raises `ConfigError` for a task that the targets do not fit, `DataError` for
    classes that are no whole numbers.
    """
    shape, y = shapes_of(batch.x), batch.y
    classes = classes or len(class_names) or None
    if task == "other":
        return Spec(task, shape, outputs=outputs or classes or 0, classes=classes, class_names=tuple(class_names))
    if outputs is not None:
        raise ConfigError(
            f'outputs={outputs}: of a task `{task}` the targets say it. Leave it out, or give task="other".'
        )
    if not isinstance(y, Tensor):
        raise ConfigError(
            f"The targets of the data set `{name}` are {describe_shapes(shapes_of(y))}; a task `{task}` has one. "
            'Give task="other", and a loss and metrics that know them.'
        )
    if task == "dense":
        return Spec(task, shape, outputs=(n := _dense(name, y, classes)), classes=n, class_names=tuple(class_names))
    # of these the inputs may be anything
    spec = spec_of(name, task, next(leaves(batch.x)), y, classes=classes, class_names=class_names)
    return replace(spec, input_shape=shape)


def _dense(name: str, y: Tensor, classes: int | None) -> int:
    if y.is_floating_point() or y.ndim < 2:
        raise DataError(
            f"The targets of `{name}` are {str(y.dtype).removeprefix('torch.')} {list(y.shape)}; a task `dense` has a "
            "class for each element, whole numbers [N, T] or [N, H, W]."
        )
    return classes or int(y.max()) + 1
