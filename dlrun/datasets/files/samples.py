"""Raw samples from a file that a person gives: an array, a table or a picture."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from dlrun.datasets.files.arrays import as_samples, read_array
from dlrun.datasets.files.framing import ENDINGS
from dlrun.datasets.files.pictures import Reading, read_picture
from dlrun.datasets.files.polarity import report_polarity
from dlrun.datasets.files.tables import read_table
from dlrun.errors import UserError
from dlrun.terminal import output
from dlrun.types import RawInputs


def read(path: Path, inputs: RawInputs, reading: Reading | None = None) -> Tensor:
    """The samples in a file, [N, *shape], as the data set's own files have them.

    The file is a .npy, .csv, .tsv or .txt, or a picture (.png, .jpg, …). Values outside of the training samples' range
    are said, and pictures that look like negatives of the training pictures. Raises `UserError` for a file that cannot
    be read, for samples of another layout, and for values that are not finite.
    """
    reading = reading or Reading()
    raw = _read(path, inputs, reading)
    if not raw.numel():
        raise UserError(f"{path} holds no samples.")
    if raw.is_floating_point() and not bool(raw.isfinite().all()):
        first = (~raw.isfinite().flatten(1).all(1)).nonzero()[0].item()
        raise UserError(f"{path} holds values that are not finite numbers, the first in sample {first}.")
    if inputs.dtype == "int64" and raw.is_floating_point() and bool((raw == raw.round()).all()):
        raw = raw.long()
    _report_range(path, raw, inputs)
    report_polarity(path, raw, inputs, picture=_suffix(path) in ENDINGS, inverted=reading.invert)
    return raw


def _suffix(path: Path) -> str:
    # table.csv.gz is a .csv
    return (path.suffix if path.suffix != ".gz" else Path(path.stem).suffix).lower()


def _read(path: Path, inputs: RawInputs, reading: Reading) -> Tensor:
    suffix, shape = _suffix(path), inputs.shape
    if reading != Reading() and suffix not in ENDINGS:
        output.warn(f"{path} is no picture: --background, --pixels, --raw and --invert change nothing.")
    try:
        if suffix == ".npy":
            return as_samples(path, read_array(path), shape)
        if suffix in (".csv", ".tsv", ".txt"):
            delimiter = {".csv": ",", ".tsv": "\t"}.get(suffix)
            return read_table(path, delimiter, width=math.prod(shape), names=inputs.columns).reshape(-1, *shape)
        if suffix in ENDINGS:
            return read_picture(path, inputs, reading)
    except UserError:
        raise
    except Exception as error:  # of a damaged file, the libraries raise whatever they stumble over
        reason = str(error).splitlines()[0] if str(error) else "it is damaged, or does not fit into memory"
        raise UserError(f"{path} cannot be read as a {suffix} file: {reason}") from None
    raise UserError(f"{path}: `{suffix}` files cannot be read. Give a .npy, .csv, .png or .jpg file.")


def _report_range(path: Path, raw: Tensor, inputs: RawInputs) -> None:
    """Say which values lie outside of the training samples' range."""
    if not inputs.high:
        return
    along = [1, -1, *[1] * (raw.ndim - 2)] if len(inputs.high) > 1 else [1]
    low, high = (torch.tensor(side, dtype=torch.float64).view(along) for side in (inputs.low, inputs.high))
    slack = 1e-6 * (high - low)
    outside = (raw.double() < low - slack) | (raw.double() > high + slack)
    if bool(outside.any()):
        samples = int(outside.flatten(1).any(1).sum())
        output.warn(
            f"{path}: {int(outside.sum()):,} of {raw.numel():,} values, in {samples:,} of {len(raw):,} samples, lie "
            f"outside of the training samples' range{_where(raw, outside, inputs)}."
        )
    elif float(low.min()) == 0 and float(high.max()) >= 16 and _is_scaled(raw):
        output.warn(
            f"{path}: its values run from {float(raw.min()):g} to {float(raw.max()):g}, those of the training samples "
            f"from 0 to {float(high.max()):g}. If they were scaled, scale them back: inputs are raw."
        )


def _is_scaled(raw: Tensor) -> bool:
    return raw.is_floating_point() and float(raw.max()) <= 1 and bool((raw != raw.round()).any())


def _where(raw: Tensor, outside: Tensor, inputs: RawInputs) -> str:
    if len(inputs.high) == 1 or raw.ndim > 2:
        low, high = min(inputs.low), max(inputs.high)
        return f", {low:g} to {high:g}: they run from {float(raw.min()):g} to {float(raw.max()):g}"
    found = []
    for i in outside.any(0).nonzero().flatten().tolist():
        name = inputs.columns[i] if inputs.columns else i + 1
        values = raw[:, i]
        found.append(
            f"column {name} runs from {float(values.min()):g} to {float(values.max()):g}, there "
            f"{inputs.low[i]:g} to {inputs.high[i]:g}"
        )
    return ": " + "; ".join(found[:3]) + (" …" if len(found) > 3 else "")
