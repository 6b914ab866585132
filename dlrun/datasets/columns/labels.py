"""Targets in an array: classes, numbered, with their names, or the numbers of a regression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dlrun.errors import ConfigError, DataError
from dlrun.terminal import output

ArrayTask = Literal["classification", "regression"]

MOST = 1000
"""Different whole numbers that are classes unless told otherwise."""


def read_labels(arrays: Mapping[str, Any], task: ArrayTask | None) -> tuple[dict[str, Any], tuple[str, ...], ArrayTask]:
    """The targets of each split as arrays of numbers, the names of classes, and the task.

    Texts, truth values and whole numbers are classes, unless `task` says otherwise, and a line says so of whole
    numbers. Raises `DataError` for targets that are neither or both.
    """
    import numpy

    found = {split: _plain(numpy.asarray(values)) for split, values in arrays.items()}
    found = {
        split: values.reshape(len(values)) if values.ndim == 2 and values.shape[1] == 1 else values
        for split, values in found.items()
    }
    y = found["train"]
    _check_alike(found)
    if y.dtype.kind not in "biufU":
        raise DataError(f"The targets are of type {y.dtype}; expected numbers or texts.")
    if y.ndim == 2 and _is_one_hot(y):
        if task is None:
            raise ConfigError(
                f"The targets {[*y.shape]} have one 1 in each row. Type dataset.task=classification if it marks the "
                "class, or dataset.task=regression."
            )
        if task == "classification":
            return {split: values.argmax(1) for split, values in found.items()}, (), task
    if task is None:
        task = _guess(y)
    if task == "regression":
        if y.dtype.kind not in "biuf":
            raise DataError("The targets are texts; a regression needs numbers. Type dataset.task=classification.")
        return {split: values.astype("float64") for split, values in found.items()}, (), task
    parts = [values for values in found.values() if values.dtype.kind == "f" and (values != values.round()).any()]
    if y.ndim != 1 or parts:
        y = parts[0] if parts else y
        raise DataError(
            f"The targets are {y.dtype} of the shape {[*y.shape]}; classes are whole numbers or texts, one a sample. "
            "For numbers type dataset.task=regression."
        )
    return *_numbered(found), task


def _check_alike(found: Mapping[str, Any]) -> None:
    """Raise `DataError` for a split whose targets are of another kind or shape than those of training."""
    y = found["train"]
    for split, values in found.items():
        if (values.dtype.kind == "U") != (y.dtype.kind == "U") or values.shape[1:] != y.shape[1:]:
            raise DataError(
                f"The targets of the {split} split are {values.dtype} [{', '.join(map(str, values.shape))}], those of "
                f"the training split {y.dtype} [{', '.join(map(str, y.shape))}]; expected are numbers or texts in all "
                "splits, of one shape a sample."
            )


def _plain(values: Any) -> Any:
    """Texts as such, whatever they are stored as."""
    if values.dtype.kind == "S":
        import numpy

        try:
            return numpy.char.decode(values, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"The targets are bytes that are no UTF-8: {error}. Save them as texts.") from None
    if values.dtype.kind in "OT" and all(isinstance(each, str | bytes) for each in values.flat):
        return values.astype(str)
    return values


def _numbered(found: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Classes by their places among all values, and their names where they are no such numbers already."""
    import numpy

    classes = numpy.unique(numpy.concatenate([*found.values()]))
    numbers = {split: numpy.searchsorted(classes, values) for split, values in found.items()}
    if classes.dtype.kind != "U" and numpy.array_equal(classes, numpy.arange(len(classes))):
        return numbers, ()
    whole = classes.astype("int64") if classes.dtype.kind == "f" else classes
    return numbers, tuple(str(each) for each in whole)


def _is_one_hot(y: Any) -> bool:
    return bool(y.shape[1] > 1 and y.dtype.kind in "biuf" and ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())


def _guess(y: Any) -> ArrayTask:
    import numpy

    if y.ndim != 1 or y.dtype.kind == "f":
        return "regression"
    if y.dtype.kind in "Ub":
        return "classification"
    different = len(numpy.unique(y))
    if different > min(MOST, max(2, len(y) // 2)):
        return "regression"
    if different > 2:
        output.say(
            f"The targets have {different} different whole numbers, taken as classes. For a regression type "
            "dataset.task=regression."
        )
    return "classification"
