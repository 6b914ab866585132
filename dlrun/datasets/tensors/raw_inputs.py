"""What a run keeps of its data set's raw inputs, so that `dlrun predict` needs no data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from dlrun.datasets.columns.encode import EncodeColumn, EncodeColumns
from dlrun.datasets.tensors.checks import CHANNELS
from dlrun.datasets.tensors.standardise import Standardise
from dlrun.errors import ConfigError
from dlrun.storage.files.record import misfit
from dlrun.types import RawInputs, identity

Prepare = Callable[[Tensor], Tensor]

LEAST_SIDE = 4
"""Pixels of a side from which on the outermost ones are a border."""

OF_TABLES = ("kinds", "texts", "missing")
"""What only tables have: others are described as by earlier versions."""

OBSERVED = 1000
"""Pictures whose borders are looked at: of all of MNIST it would take as long as the split's range."""


class Encoding(Protocol):
    """Raw columns [N, C], with gaps and texts, as inputs of a model."""

    def fit(self, x: Tensor) -> Prepare:
        """The preparation by the training samples."""

    def describe(self, x: Tensor) -> RawInputs:
        """The raw inputs, by the training samples."""

    def report(self, splits: Mapping[str, Tensor]) -> None:
        """Say what the raw inputs of the splits have unlike one another."""


def observe(x: Tensor, *, pixels: Sequence[float] | None = None, columns: Sequence[str] = ()) -> RawInputs:
    """Describe the raw training inputs [N, ...].

    With declared `pixels` only the borders of some are looked at.
    """
    shape, dtype = tuple(x.shape[1:]), str(x.dtype).removeprefix("torch.")
    border = None if columns else _border(x)
    if pixels is not None:
        return replace(declared(shape, dtype, pixels, columns), border=border)
    # each component of a vector, each channel of a picture, else all in one
    each = len(shape) == 1 or (len(shape) == 3 and shape[0] in CHANNELS)
    rows = x.reshape(len(x), shape[0] if each else 1, -1)
    least, most = (tuple(end.double().tolist()) for end in (rows.amin((0, 2)), rows.amax((0, 2))))
    return RawInputs(shape, dtype, least, most, columns=_names(shape, columns), border=border)


def _border(x: Tensor) -> tuple[float, float] | None:
    found = borders(x[:: max(1, len(x) // OBSERVED)])
    if found is None or not bool(found.isfinite().all()):
        return None
    first, last = torch.quantile(found, found.new_tensor([0.01, 0.99])).tolist()
    return first, last


def borders(x: Tensor) -> Tensor | None:
    """The mean of each picture's outermost pixels, [N] in float64.

    Channels are first or last, one alone may have no axis, and a square may be a vector. None for other samples [N, …].

    >>> x = torch.zeros(2, 1, 8, 8)
    >>> x[0, :, 1:-1, 1:-1] = 1
    >>> borders(x), borders(1 - x)
    (tensor([0., 0.], dtype=torch.float64), tensor([1., 1.], dtype=torch.float64))
    """
    shape = tuple(x.shape[1:])
    side = math.isqrt(math.prod(shape))
    if len(shape) == 3 and shape[0] not in CHANNELS and shape[2] in CHANNELS:
        x = x.movedim(3, 1)
    elif len(shape) == 2:
        x = x[:, None]
    elif len(shape) == 1 and side * side == shape[0]:
        x = x.reshape(-1, 1, side, side)
    elif len(shape) != 3 or shape[0] not in CHANNELS:
        return None
    if not len(x) or min(x.shape[2:]) < LEAST_SIDE or x.is_complex():
        return None
    colours = x[:, : x.shape[1] - (x.shape[1] in (2, 4))]  # without alpha
    sides = colours[..., 0, :], colours[..., -1, :], colours[..., 0], colours[..., -1]
    return torch.cat(sides, -1).double().mean((1, 2))


def declared(shape: tuple[int, ...], dtype: str, pixels: Sequence[float] | None, columns: Sequence[str]) -> RawInputs:
    """Raw inputs by what is said of them: their values are not looked at.

    Raises `ConfigError` for pixels that are not two numbers, and columns that are not one a component.
    """
    if pixels is None:
        return RawInputs(shape, dtype, columns=_names(shape, columns))
    black, white = (*map(float, pixels), math.nan, math.nan)[:2]
    if len(pixels) != 2 or not math.isfinite(black) or not math.isfinite(white) or black == white:
        raise ConfigError(f"pixels={tuple(pixels)}: expected the values of black and white, such as (0, 255).")
    low, high = min(black, white), max(black, white)
    return RawInputs(shape, dtype, (low,), (high,), (black, white), _names(shape, columns))


def _names(shape: tuple[int, ...], columns: Sequence[str]) -> tuple[str, ...]:
    names = tuple(columns)
    if names and (shape != (len(names),) or len({*names}) < len(names)):
        raise ConfigError(
            f"columns: {len(names)} names ({', '.join(names[:8])}); expected one of its own for each component of a "
            f"sample, {list(shape)}."
        )
    return names


def describe(inputs: RawInputs | None, prepare: Prepare) -> dict[str, Any]:
    """Raw inputs and their preparation as JSON values.

    Empty for tokens, and for a preparation of the user's own, which is a function of the data set.
    """
    if inputs is None or not (isinstance(prepare, Standardise | EncodeColumns) or prepare is identity):
        return {}
    kept = {name: value for name, value in asdict(inputs).items() if name not in OF_TABLES or inputs.kinds}
    return kept | {"prepare": asdict(prepare) if isinstance(prepare, Standardise | EncodeColumns) else None}


def restore(kept: Mapping[str, Any]) -> tuple[RawInputs, Prepare]:
    """The inverse of `describe`.

    Raises `ValueError` that names what is no such description.
    """
    return _made(RawInputs, {name: value for name, value in kept.items() if name != "prepare"}), _preparation(
        kept.get("prepare")
    )


def _preparation(kept: Any) -> Prepare:
    if not kept:
        return identity
    if "columns" in kept:
        return EncodeColumns(tuple(_made(EncodeColumn, each) for each in kept["columns"]))
    made: Standardise = _made(Standardise, kept)
    return made


def _made(kind: Any, kept: Any) -> Any:
    values = {name: _tuples(value) for name, value in dict(kept).items()}
    if found := misfit(values, kind):
        raise ValueError(f"of its `inputs`, {found}")
    return kind(**values)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
