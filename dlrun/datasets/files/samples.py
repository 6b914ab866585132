"""Raw samples from a file that a person gives: an array, a table or an image."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import torch
from torch import Tensor

from dlrun.errors import UserError


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
    if not len(raw):
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
            return _table(path, "\t" if suffix == ".tsv" else ",")
        if suffix in (".png", ".jpg", ".jpeg"):
            return _image(path, shape)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as a {suffix} file: {error}") from None
    raise UserError(f"{path}: `{suffix}` files cannot be read. Give a .npy, .csv, .png or .jpg file.")


def _array(path: Path) -> Tensor:
    import numpy

    # a pickle could run code
    values = numpy.load(path, allow_pickle=False)
    # booleans, integers, floats
    if values.dtype.kind not in "biuf":
        raise ValueError(f"its values are of type {values.dtype}; expected real numbers")
    return torch.from_numpy(values).float()


def _table(path: Path, delimiter: str) -> Tensor:
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
        rows = [row for row in csv.reader(file, delimiter=delimiter) if row]
    try:
        [float(cell) for row in rows[:1] for cell in row]
    except ValueError:  # a header
        rows = rows[1:]
    if len({*map(len, rows)}) > 1:
        raise ValueError(f"its lines have {min(map(len, rows))} to {max(map(len, rows))} numbers")
    return torch.tensor([[float(cell) for cell in row] for row in rows])


def _image(path: Path, shape: tuple[int, ...]) -> Tensor:
    import numpy
    from PIL import Image

    # the numbers of a palette, or one bit a pixel, would mean something else
    mode = "RGB" if len(shape) == 3 and shape[0] == 3 else "L"
    pixels = torch.from_numpy(numpy.array(Image.open(path).convert(mode))).float()
    return pixels[None] if pixels.ndim == 2 else pixels.movedim(-1, 0)[None]
