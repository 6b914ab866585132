"""The description of a data set for a model, read off its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlrun.datasets.tensors.checks import check_finite, check_numbered
from dlrun.datasets.tensors.standardise import is_far, mean_and_deviation
from dlrun.errors import ConfigError, DataError
from dlrun.nests.shapes import shapes_from, sizes_of
from dlrun.storage.files.record import misfit
from dlrun.types import Spec, Task


def spec_of(
    name: str,
    task: Task,
    x: Tensor,
    y: Tensor,
    *,
    classes: int | None = None,
    class_names: Sequence[str] = (),
    target_names: Sequence[str] = (),
) -> Spec:
    """The spec of inputs [N, ...] and targets [N, ...]; `target_names` are those of a regression.

    The number of classes is `classes`, else the number of names, else the largest class + 1. Raises `ConfigError` for
    classes of another task and for too many names, `DataError` for classes that are not whole numbers, and for those
    that do not run from 0 on if their number is not given.
    """
    shape = tuple(x.shape[1:])
    if task in ("dense", "other"):
        raise ConfigError(
            f"The data set `{name}` is for {task}: type from_nested(…) in place of from_tensors(…), with inputs that "
            "are normalised already."
        )
    if task != "classification":
        if classes is not None or class_names:
            raise ConfigError(f"The data set `{name}` is for {task}, which has no classes.")
        outputs = y[0].numel() if task == "regression" else 1
        known = task == "regression" and len(target_names) == outputs
        return Spec(task, shape, outputs, target_names=tuple(target_names) if known else ())
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
        scale = scale_of(spec)
        # in float64: of a mean far from 0 float32 would keep few digits
        return ((y.double() - scale.mean) / scale.deviation).float() if scale else y.to(torch.float32)
    return y


SENTENCE = 64
"""Tokens of a text that may have any length, about."""


def tokens_of_sample(spec: Spec) -> int | None:
    """The tokens that a model predicts of a sample, about; None if these are no tokens of a vocabulary."""
    if spec.task == "language":
        return int(spec.input_shape[0])
    of_pairs = spec.task == "dense" and spec.vocabulary is not None and None in sizes_of(spec.input_shape)
    return SENTENCE if of_pairs else None


class TargetScale(NamedTuple):
    """The mean and the deviation of raw targets, [O] in float64."""

    mean: Tensor
    deviation: Tensor

    def undo(self, scaled: Tensor) -> Tensor:
        """Raw targets [N, O] of scaled ones, float64 where float32 would lose them (MPS has no float64)."""
        if scaled.device.type != "mps" and is_far(self.mean.abs().tolist(), self.deviation.tolist()):
            scaled = scaled.double()
        return scaled * self.deviation.to(scaled) + self.mean.to(scaled)


def scale_of(spec: Spec) -> TargetScale | None:
    """The scale of a data set's targets, if they are scaled."""
    return spec.target_scale and TargetScale(*(torch.tensor(each, dtype=torch.float64) for each in spec.target_scale))


def target_names(spec: Spec) -> tuple[str, ...]:
    """The names of a regression's targets; those that are not known are `y`, or `y0`, `y1` and so on."""
    return spec.target_names or (tuple(f"y{i}" for i in range(spec.outputs)) if spec.outputs > 1 else ("y",))


def restore(spec: Spec, outputs: Tensor) -> Tensor:
    """Outputs in the unit of the raw targets: scaled back, or as they are."""
    scale = scale_of(spec)
    return scale.undo(outputs) if scale else outputs


def with_target_scale(name: str, spec: Spec, y: Tensor) -> Spec:
    """The spec with the scale of the raw training targets. Raises `ConfigError` for another task than regression."""
    if spec.task != "regression":
        raise ConfigError(f"dataset.scale_targets=true: the data set `{name}` is for {spec.task}. Leave it out.")
    return replace(spec, target_scale=mean_and_deviation(y.reshape(len(y), -1)))


def scaled_truth(truth: Callable[[Tensor], Tensor], spec: Spec) -> Callable[[Tensor], Tensor]:
    """The function behind the targets, in their scale."""
    scale = scale_of(spec)
    return truth if scale is None else lambda x: (truth(x) - scale.mean.to(x)) / scale.deviation.to(x)


def _whole_numbers_message(name: str, y: Tensor) -> str:
    kind = str(y.dtype).removeprefix("torch.")
    advice = ""
    if y.ndim == 2:
        advice = " Type y.argmax(1) for one-hot targets." if y.shape[1] > 1 else " Type y[:, 0]."
    elif y.is_floating_point() and bool((y == y.round()).all()):
        advice = " Type y.long()."
    needed = f"a classification needs whole numbers, [N].{advice}"
    return f"The targets of `{name}` are {kind} of shape {list(y.shape)}; {needed}"


def read_spec(said: Any) -> Spec | None:
    """A spec from its JSON values; None if they are none of a model."""
    try:
        # tuples, which JSON has made lists
        shape, scale = shapes_from(said["input_shape"]), said.get("target_scale")
        lists: dict[str, Any] = {
            "input_shape": shape,
            "class_names": tuple(said["class_names"]),
            "target_names": tuple(said.get("target_names", ())),
        }
        values = said | lists | {"target_scale": scale and tuple(tuple(map(float, each)) for each in scale)}
        # the shape is looked at below
        if misfit({**values, "input_shape": ()}, Spec):
            return None
        spec = Spec(**values)
        # a class, or a component, without a name has nothing to be printed as
        names = spec.class_names if spec.task == "classification" else spec.target_names
        if names and len(names) != spec.outputs:
            return None
        usable = int(spec.outputs) >= (0 if spec.task == "other" else 1) and (spec.task != "language" or len(shape) > 0)
        usable = usable and all(size is None or int(size) > 0 for size in sizes_of(shape))
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return spec if usable else None
