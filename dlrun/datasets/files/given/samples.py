"""Raw samples from a file that a person gives: an array, a table or a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from dlrun.datasets.files.arrays import array_chunks
from dlrun.datasets.files.framing import ENDINGS
from dlrun.datasets.files.given.polarity import Polarity
from dlrun.datasets.files.given.ranges import Ranges
from dlrun.datasets.files.pictures import Reading, read_picture
from dlrun.datasets.files.tables import table_chunks
from dlrun.datasets.files.tabular.read import ending
from dlrun.errors import UserError
from dlrun.terminal import output
from dlrun.types import RawInputs

SIZE = 1000
"""Samples of a file that are in memory at once."""


def read(path: Path, inputs: RawInputs, reading: Reading | None = None) -> Tensor:
    """All samples in a file, as `chunks` gives them."""
    return torch.cat([*chunks(path, inputs, reading)])


def chunks(path: Path, inputs: RawInputs, reading: Reading | None = None, *, size: int = SIZE) -> Iterator[Tensor]:
    """The samples in a file, [n, *shape] with at most `size` at a time, as the data set's own files have them.

    The file is a .npy, .csv, .tsv or .txt, or a picture (.png, .jpg, …). At its end values outside of the training
    samples' range are said, and pictures that look like negatives of the training pictures. Raises `UserError` for a
    file that cannot be read, for samples of another layout, and for values that are not finite.
    """
    reading = reading or Reading()
    seen, picture = 0, ending(path) in ENDINGS
    ranges, polarity = Ranges(inputs), Polarity(inputs, picture=picture)
    for raw in _understood(path, inputs, reading, size):
        if raw.dtype == torch.float64 and inputs.dtype not in ("float64", "int64"):
            raw = raw.float()
        if raw.is_floating_point() and not bool(raw.isfinite().all()):
            first = seen + int((~raw.isfinite().flatten(1).all(1)).nonzero()[0])
            raise UserError(f"{path} holds values that are not finite numbers, the first in sample {first}.")
        if inputs.dtype == "int64" and raw.is_floating_point() and bool((raw == raw.round()).all()):
            raw = raw.long()
        ranges.add(raw)
        polarity.add(raw)
        seen += len(raw)
        if len(raw):
            yield raw
    if not seen:
        raise UserError(f"{path} holds no samples.")
    ranges.report(path)
    polarity.report(path, inverted=reading.invert)


def _understood(path: Path, inputs: RawInputs, reading: Reading, size: int) -> Iterator[Tensor]:
    """Yield the chunks of a file; whatever a library raises is a `UserError`."""
    suffix = ending(path)
    if reading != Reading() and suffix not in ENDINGS:
        output.warn(f"{path} is no picture: --background, --pixels, --raw and --invert change nothing.")
    try:
        yield from _by_kind(path, inputs, reading, size)
    except UserError:
        raise
    except Exception as error:  # of a damaged file, the libraries raise whatever they stumble over
        reason = str(error).splitlines()[0] if str(error) else "it is damaged, or does not fit into memory"
        raise UserError(f"{path} cannot be read as a {suffix} file: {reason}") from None


def _by_kind(path: Path, inputs: RawInputs, reading: Reading, size: int) -> Iterator[Tensor]:
    suffix, shape = ending(path), inputs.shape
    if suffix == ".npy":
        yield from array_chunks(path, shape, size)
    elif suffix in (".csv", ".tsv", ".txt"):
        delimiter = {".csv": ",", ".tsv": "\t"}.get(suffix)
        for rows in table_chunks(path, delimiter, width=math.prod(shape), size=size, names=inputs.columns):
            yield rows.reshape(-1, *shape)
    elif suffix in ENDINGS:
        yield read_picture(path, inputs, reading)
    else:
        raise UserError(f"{path}: `{suffix}` files cannot be read. Give a .npy, .csv, .png or .jpg file.")
