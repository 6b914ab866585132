"""A `Data` that no function of dlrun made, compared with its own spec."""

from __future__ import annotations

import torch

from dlrun.datasets.tensors.checks import check_finite, in_words, layout_advice
from dlrun.datasets.tensors.split import TensorSplit
from dlrun.errors import DataError, DlrunError, place
from dlrun.types import Batch, Data, Split


def check_made_by_hand(data: Data) -> None:
    """Raise `DataError` for samples of a split that contradict the spec.

    Tensors are looked at whole, of other splits the first and the last sample.
    """
    # the functions of dlrun describe the raw inputs, and have compared the splits; windows of a text check themselves
    if data.inputs is not None or data.spec.task == "language":
        return
    for split in ("train", "validation", "test"):
        part: Split | None = getattr(data, split)
        # the samples of a map-style data set are looked at as they come
        if part is not None and len(part) and not hasattr(part, "dataset"):
            _check(data, split, _some(data.name, split, part))


def _some(name: str, split: str, part: Split) -> Batch:
    if isinstance(part, TensorSplit):
        return Batch(part.x, part.y)
    try:
        return part.gather(torch.tensor(sorted({0, len(part) - 1})))
    except DlrunError:
        raise
    except Exception as error:
        raise DataError(
            f"Reading the first and the last sample of the {in_words(split)} split of `{name}` failed: "
            f"{type(error).__name__}: {error}{place(error)}"
        ) from error


def _check(data: Data, split: str, batch: Batch) -> None:
    spec, where = data.spec, f"of the {in_words(split)} split of `{data.name}`"
    shape = tuple(batch.x.shape[1:])
    if shape != spec.input_shape or len(batch.x) != len(batch.y):
        raise DataError(
            f"The samples {where} are {list(batch.x.shape)} and {list(batch.y.shape)}; its spec says [N, "
            f"{', '.join(map(str, spec.input_shape))}] and [N, …]{layout_advice(shape, spec.input_shape)}."
        )
    check_finite(batch.x, where, "input")
    check_finite(batch.y, where, "target")
    y = batch.y
    if spec.classes is not None and y.ndim == 1 and not y.is_floating_point():
        wrong = ((y < 0) | (y >= spec.classes)).nonzero().flatten()
        if len(wrong):
            i = int(wrong[0])
            raise DataError(f"Sample {i} {where} has the class {int(y[i])}; expected 0 to {spec.classes - 1}.")
