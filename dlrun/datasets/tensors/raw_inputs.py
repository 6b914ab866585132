"""What a run keeps of its data set's raw inputs, so that `dlrun predict` needs no data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from dlrun.datasets.tensors.checks import CHANNELS
from dlrun.datasets.tensors.standardise import Standardise
from dlrun.errors import ConfigError
from dlrun.storage.record import misfit
from dlrun.types import RawInputs, identity

Prepare = Callable[[Tensor], Tensor]


def observe(x: Tensor, *, pixels: Sequence[float] | None = None, columns: Sequence[str] = ()) -> RawInputs:
    """Describe the raw training inputs [N, ...].

    With declared `pixels` their values are not looked at.
    """
    shape, dtype = tuple(x.shape[1:]), str(x.dtype).removeprefix("torch.")
    if pixels is not None:
        return declared(shape, dtype, pixels, columns)
    # each component of a vector, each channel of a picture, else all in one
    each = len(shape) == 1 or (len(shape) == 3 and shape[0] in CHANNELS)
    rows = x.reshape(len(x), shape[0] if each else 1, -1)
    least, most = (tuple(end.double().tolist()) for end in (rows.amin((0, 2)), rows.amax((0, 2))))
    return RawInputs(shape, dtype, least, most, columns=_names(shape, columns))


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
    if inputs is None or not (isinstance(prepare, Standardise) or prepare is identity):
        return {}
    return asdict(inputs) | {"prepare": asdict(prepare) if isinstance(prepare, Standardise) else None}


def restore(kept: Mapping[str, Any]) -> tuple[RawInputs, Prepare]:
    """The inverse of `describe`.

    Raises `ValueError` that names what is no such description.
    """
    values = {name: _tuples(value) for name, value in kept.items() if name != "prepare"}
    scale = kept.get("prepare")
    scale = None if scale is None else {name: _tuples(value) for name, value in dict(scale).items()}
    if found := misfit(values, RawInputs) or (misfit(scale, Standardise) if scale else None):
        raise ValueError(f"of its `inputs`, {found}")
    return RawInputs(**values), Standardise(**scale) if scale else identity


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
