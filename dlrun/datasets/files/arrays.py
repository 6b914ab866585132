"""An array in a .npy file, its layout compared with that of a sample."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlrun.datasets.tensors.checks import layout_advice
from dlrun.errors import DataError


def array_chunks(path: Path, shape: tuple[int, ...], size: int) -> Iterator[Tensor]:
    """The samples of a .npy file, [n, *shape] with at most `size` at a time.

    Whole numbers are uint8 or int64, others float32 or float64, as they are. The file is mapped, not read: it may be
    larger than the memory.
    """
    values = _mapped(path)
    rows = values[None] if is_one(path, values.shape, shape) else values
    for start in range(0, len(rows), size):
        yield _as_tensor(rows[start : start + size]).reshape(-1, *shape)


def _mapped(path: Path) -> Any:
    import numpy
    from numpy.lib import format as npy

    with path.open("rb") as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"its format {version} is unknown")
        head = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = head(file)
        # booleans, integers, floats
        if dtype.kind not in "biuf":
            raise ValueError(f"its values are of type {dtype}; expected real numbers")
        given, expected = path.stat().st_size - file.tell(), math.prod(shape) * dtype.itemsize
    # the head is only a claim
    if min(shape, default=0) < 0 or given < expected:
        raise ValueError(f"its head says {list(shape)} values of {dtype}, {expected:,} bytes; it has {given:,}")
    # nothing can be mapped of no bytes; a pickle could run code
    return numpy.load(path, mmap_mode="r" if expected else None, allow_pickle=False)


def _as_tensor(values: Any) -> Tensor:
    dtype = values.dtype
    # bytes stay bytes; of 64 bits without a sign, torch has no whole numbers
    if dtype.kind == "f" or (dtype.kind == "u" and dtype.itemsize == 8):
        return torch.from_numpy(values.astype("float64" if dtype.itemsize >= 8 else "float32"))
    return torch.from_numpy(values.astype("uint8" if dtype.kind in "bu" and dtype.itemsize == 1 else "int64"))


def is_one(path: Path, given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether an array of the shape `given` is one sample, not several.

    They may lie flat, and axes of length 1 may be missing. Raises `DataError` for any other layout: with the channels
    last, say, the same number of values would be read in a wrong order.
    """
    flat = math.prod(shape)
    if not given:
        raise DataError(f"{path} holds a single number; a sample of this run has the shape {list(shape)}.")
    if not math.prod(given):
        raise DataError(f"{path} holds no samples.")
    if _fits(given[1:], shape) and not (given == shape and flat > 1):
        return False
    if _fits(given, shape):
        return True
    raise DataError(
        f"{path} holds an array {list(given)}, samples of shape {list(given[1:])}; those of this run are {list(shape)}"
        f"{layout_advice(given[1:], shape) or layout_advice(given, shape)}."
    )


def _fits(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return _long(given) == _long(shape) or given == (math.prod(shape),)


def _long(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
