"""Raw samples from a file that a person gives: an array, a table or an image."""

from __future__ import annotations

import csv
import gzip
import math
import warnings
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import torch
from torch import Tensor

from dlrun.errors import UserError

MOST_PIXELS = 50_000_000
"""Of an image, unless the samples of the data set have more."""


def read(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The samples in a file, as floats [N, …].

    The file is a .npy, .csv, .tsv, .txt, .png or .jpg. If it holds a single sample of `shape`, they are [1, …]; other
    shapes are left to whoever uses them.

    Raises `UserError` for a file that cannot be read, and for one without samples or with values that are not finite.
    """
    raw = _read(path, shape)
    if tuple(raw.shape) == shape or (1, *raw.shape) == shape:
        raw = raw[None]
    if raw.ndim == 0:
        raise UserError(f"{path} holds a single number; a sample of this run has the shape {list(shape)}.")
    if not raw.numel():
        raise UserError(f"{path} holds no samples.")
    if not bool(raw.isfinite().all()):
        raise UserError(f"{path} holds values that are not finite numbers.")
    return raw


def _read(path: Path, shape: tuple[int, ...]) -> Tensor:
    # table.csv.gz is a .csv
    suffix = path.suffix if path.suffix != ".gz" else Path(path.stem).suffix
    try:
        if suffix == ".npy":
            return _array(path)
        if suffix in (".csv", ".tsv", ".txt"):
            return _table(path, shape, "\t" if suffix == ".tsv" else ",")
        if suffix in (".png", ".jpg", ".jpeg"):
            return _image(path, shape)
    except Exception as error:  # of a damaged file, the libraries raise whatever they stumble over
        reason = str(error).splitlines()[0] if str(error) else "it is damaged, or does not fit into memory"
        raise UserError(f"{path} cannot be read as a {suffix} file: {reason}") from None
    raise UserError(f"{path}: `{suffix}` files cannot be read. Give a .npy, .csv, .png or .jpg file.")


def _array(path: Path) -> Tensor:
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
        # the head is only a claim: memory is taken for what the file has
        if min(shape, default=0) < 0 or given < expected:
            raise ValueError(f"its head says {list(shape)} values of {dtype}, {expected:,} bytes; it has {given:,}")
        file.seek(0)
        # a pickle could run code
        return torch.from_numpy(npy.read_array(file, allow_pickle=False)).float()


def _table(path: Path, shape: tuple[int, ...], delimiter: str) -> Tensor:
    values, widths, most = array("f"), set(), psutil.virtual_memory().available // 8
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
        # line by line: a quoted text cannot make one row of them all
        rows = (next(csv.reader([line], delimiter=delimiter), []) for line in _lines(file, shape))
        for i, row in enumerate(row for row in rows if row):
            try:
                values.extend([float(cell) for cell in row])
            except ValueError:
                if i:  # the first may be a header
                    raise
                continue
            widths.add(len(row))
            if len(values) > most:
                raise ValueError("it has more values than the memory holds")
    if len(widths) > 1:
        raise ValueError(f"its lines have {min(widths)} to {max(widths)} numbers")
    return torch.frombuffer(values, dtype=torch.float32).view(-1, *widths) if values else torch.empty(0)


def _lines(file: IO[str], shape: tuple[int, ...]) -> Iterator[str]:
    """The lines of a table; a packed one could have any length."""
    most = 64 * max(math.prod(shape), 1 << 16)
    while line := file.readline(most):
        if len(line) == most:
            raise ValueError(f"a line has more than {most:,} characters")
        yield line


def _image(path: Path, shape: tuple[int, ...]) -> Tensor:
    import numpy
    from PIL import Image

    with warnings.catch_warnings():
        # our own limit is said below
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(path)
    # known from the head, before anything is unpacked
    if image.width * image.height > max(MOST_PIXELS, math.prod(shape)):
        raise ValueError(f"it has {image.width} × {image.height} pixels; expected at most {MOST_PIXELS:,}")
    # the numbers of a palette, or one bit a pixel, would mean something else
    mode = "RGB" if len(shape) == 3 and shape[0] == 3 else "L"
    pixels = torch.from_numpy(numpy.array(image.convert(mode))).float()
    return pixels[None] if pixels.ndim == 2 else pixels.movedim(-1, 0)[None]
