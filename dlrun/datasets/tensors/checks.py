"""Inputs and targets compared with what a model and a loss take, before they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dlrun.errors import DataError
from dlrun.terminal import output
from dlrun.types import RawInputs

Pair = tuple[Tensor, Tensor]
"""Raw inputs [N, ...] and targets [N, ...]."""

_LARGEST = torch.finfo(torch.float32).max

CHANNELS = (1, 2, 3, 4)
"""The channels of a picture."""

UNLIKE = 20.0
"""Between ranges of splits, a factor from which on one of them is likely to be scaled."""
TELLING = 20
"""Samples that a split has at least for its range to tell anything."""


def to_tensor(value: Any, what: str) -> Tensor:
    """A tensor of a tensor, an array or a number.

    Raises `DataError` that names `what` for anything else.
    """
    if isinstance(value, bool | int | float):
        return torch.as_tensor(value)
    if not isinstance(value, Tensor):
        value = _from_array(value, what)
    elif value.layout != torch.strided:
        raise DataError(f"{what} are a sparse tensor; expected a dense one. Type x.to_dense().")
    if value.is_complex():
        raise DataError(f"{what} are complex numbers; expected real ones. Type torch.view_as_real(x).")
    return value.detach() if value.requires_grad else value  # type: ignore[no-any-return]


def _from_array(value: Any, what: str) -> Tensor:
    import numpy

    expected = "expected a tensor, or a numpy array of numbers"
    if hasattr(value, "getbands"):
        raise DataError(
            f"{what} are a PIL image; {expected}, [C, H, W]. Type torchvision.transforms.ToTensor()(image)."
        )
    if isinstance(value, dict):
        raise DataError(f"{what} are a dict; {expected}. For inputs or targets of several tensors type from_nested(…).")
    if isinstance(value, set | str | bytes) or value is None:
        raise DataError(f"{what} are a {type(value).__name__}; {expected}.")
    if isinstance(value, numpy.ma.MaskedArray) and numpy.ma.is_masked(value):
        raise DataError(f"{what} are a masked array: masked values have no number. Fill or drop them.")
    try:
        # a table (pandas, polars) has a method of its own
        array = numpy.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value)
    except Exception as error:
        raise DataError(f"{what} are a {type(value).__name__}; {expected} ({error}).") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} are a {type(value).__name__} of type {array.dtype}; {expected}.")
    if array.dtype.kind == "f":
        array = array.astype(f"f{min(array.dtype.itemsize, 8)}", copy=False)
    elif array.dtype.kind == "u" and array.dtype.itemsize > 1:
        # torch has few operations on them
        array = array.astype("int64" if array.size == 0 or int(array.max()) < 2**63 else "float64")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    # torch takes no mirrored array (negative strides), and warns of one that may not be written
    plain = array.flags.c_contiguous and array.flags.writeable
    return torch.from_numpy(array if plain else array.copy(order="C"))


def column_names(values: Any) -> tuple[str, ...]:
    """The names of the columns, if the values are a table (pandas, polars)."""
    names = getattr(values, "columns", None)
    # pandas numbers columns that have no names
    return () if names is None or [*names] == [*range(len(names))] else tuple(map(str, names))


def names_of_targets(values: Any) -> tuple[str, ...]:
    """The names of a table's columns, or that of a single column."""
    name = getattr(values, "name", None)
    return (name,) if isinstance(name, str) else column_names(values)


def check_pair(name: str, split: str, pair: Any, columns: Sequence[str] = (), *, gaps: bool = False) -> Pair:
    """The tensors of a split.

    With `columns` a table has its own brought in that order. Raises `DataError` for what are no samples, and for inputs
    that are not finite, with the number of the first such sample; with `gaps` a NaN is a missing value.
    """
    where = f"the {in_words(split)} split of `{name}`"
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DataError(f"The samples of {where} are a {type(pair).__name__}; expected a pair of tensors (x, y).")
    x = to_tensor(_in_order(pair[0], columns, where), f"The inputs of {where}")
    y = to_tensor(pair[1], f"The targets of {where}")
    # a vector of inputs is one feature a sample
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim < 2 or len(x) == 0 or y.ndim == 0 or len(x) != len(y):
        raise DataError(
            f"{where[0].upper()}{where[1:]} has inputs of shape {list(x.shape)} and targets of shape {list(y.shape)}; "
            "expected [N, ...] and [N, ...] with the same N of at least 1."
        )
    if not gaps:
        check_finite(x, f"of {where}", "input")
    return x.contiguous(), y.contiguous()


def check_finite(values: Tensor, where: str, kind: str) -> None:
    """Raise `DataError` naming the first sample [N, ...] with a number that float32 lacks."""
    if not values.is_floating_point() or is_finite(values):
        return
    bad = ~(values.isfinite() & (values.abs() <= _LARGEST))
    place = bad.nonzero()[0].tolist()
    value = float(values[tuple(place)])
    at = f" at {place[1:]}" if len(place) > 1 else ""
    count = int(bad.flatten(1).any(1).sum()) if bad.ndim > 1 else int(bad.sum())
    others = f" ({count} samples have such {kind}s)" if count > 1 else ""
    raise DataError(
        f"Sample {place[0]} {where} has the {kind} {value:g}{at}: the data has it, no training does{others}. Expected "
        "are finite numbers: fill them, or leave these samples out."
    )


def is_finite(values: Tensor) -> bool:
    """Whether all are finite in float32."""
    if not values.numel():
        return True
    # the extremes of values with a NaN are NaN; twenty times as fast as a mask
    low, high = torch.aminmax(values)
    return low.item() >= -_LARGEST and high.item() <= _LARGEST


def check_alike(name: str, pairs: Mapping[str, Pair]) -> None:
    """Raise `DataError` for a split whose inputs have another layout or type than the training's."""
    x = pairs["train"][0]
    for split, (other, _) in pairs.items():
        if other.shape[1:] != x.shape[1:]:
            raise DataError(
                f"The inputs of the {in_words(split)} split of `{name}` have the shape {list(other.shape[1:])}, those "
                f"of the training split {list(x.shape[1:])}{layout_advice(tuple(other.shape[1:]), tuple(x.shape[1:]))}."
            )
        if other.is_floating_point() != x.is_floating_point():
            raise DataError(
                f"The inputs of the {in_words(split)} split of `{name}` are {_type(other)}, those of the training "
                f"split {_type(x)}. Give both in one type and one scale."
            )


def check_ranges(name: str, pairs: Mapping[str, Pair], inputs: RawInputs) -> None:
    """Say which splits' inputs have a range of another magnitude than the training's."""
    if inputs.pixels:
        return
    reach = max(map(abs, [*inputs.low, *inputs.high]))
    for split, (x, _) in pairs.items():
        low, high = (float(end) for end in torch.aminmax(x.view(torch.uint8) if x.dtype == torch.bool else x))
        other = max(abs(low), abs(high))
        if split != "train" and len(x) >= TELLING and (other > UNLIKE * reach or UNLIKE * other < reach):
            output.warn(
                f"The inputs of the {in_words(split)} split of `{name}` run from {low:g} to {high:g}, those of the "
                f"training split from {min(inputs.low):g} to {max(inputs.high):g}. Are both scaled alike?"
            )


def report_channels_last(name: str, shape: tuple[int, ...]) -> None:
    """Say how samples of a shape like [32, 32, 3] are taken: convolutions and `normalise` have the channels first."""
    if len(shape) == 3 and shape[2] in CHANNELS and shape[0] not in CHANNELS and shape[1] not in CHANNELS:
        output.warn(
            f"The inputs of `{name}` have the shape {list(shape)}, which is taken as {shape[0]} channels of "
            f"{shape[1]} × {shape[2]}. If the channels are last, type x.moveaxis(-1, -3)."
        )


def layout_advice(given: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """What to type for samples with the channels at the other end; empty if that is not it."""
    if len(shape) < 3 or len(given) != len(shape):
        return ""
    if given == (*shape[1:], shape[0]):
        return ", with the channels first. Type x.moveaxis(-1, -3) (numpy.moveaxis(x, -1, -3))"
    if given == (shape[-1], *shape[:-1]):
        return ", with the channels last. Type x.moveaxis(-3, -1) (numpy.moveaxis(x, -3, -1))"
    return ""


def check_numbered(name: str, y: Tensor, classes: int) -> None:
    """Raise `DataError` unless each of the classes 0 … `classes` - 1 has a sample in `y`."""
    present = sorted({*y.flatten().tolist()})
    low = int(present[0])
    if low > 0:
        raise DataError(
            f"The classes of `{name}` run from {low} to {classes - 1}; expected to begin at 0. Give y - {low}, or "
            f"classes={classes} for classes that have no training sample."
        )
    missing = sorted({*range(classes)} - {*present}) if classes < 1 << 16 else [0]
    if missing and low == 0:
        raise DataError(
            f"The classes of `{name}` run from 0 to {classes - 1}, and {len(missing)} of them have no training sample, "
            f"as {missing[0]}. Number them 0 to {len(present) - 1}, or give classes={classes}."
        )


def _in_order(table: Any, columns: Sequence[str], where: str) -> Any:
    names = getattr(table, "columns", None)
    if names is None or not columns:
        return table
    by_name = {str(name): name for name in names}
    if {*by_name} != {*columns} or len(names) != len(columns):
        raise DataError(
            f"The inputs of {where} have the columns {', '.join(by_name)}; those of the training split are "
            f"{', '.join(columns)}."
        )
    return table[[by_name[name] for name in columns]]


def in_words(split: str) -> str:
    """The name of a split in messages."""
    return "training" if split == "train" else split


def _type(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
