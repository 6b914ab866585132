"""What a run keeps of its data set's raw inputs, so that `dlrun predict` needs no data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from dlrun.datasets.tensors.standardise import Standardise
from dlrun.storage.record import misfit
from dlrun.types import RawInputs, identity

PICTURE = (1, 2, 3, 4)
"""The channels of a picture."""

Prepare = Callable[[Tensor], Tensor]


def observe(x: Tensor, *, pixels: Sequence[float] | None = None, columns: Sequence[str] = ()) -> RawInputs:
    """Describe the raw training inputs [N, ...].

    With declared `pixels` their values are not looked at.
    """
    shape, dtype = tuple(x.shape[1:]), str(x.dtype).removeprefix("torch.")
    if pixels is not None:
        low, high = float(pixels[0]), float(pixels[1])
        return RawInputs(shape, dtype, (low,), (high,), (low, high))
    # each component of a vector, each channel of a picture, else all in one
    each = len(shape) == 1 or (len(shape) == 3 and shape[0] in PICTURE)
    rows = x.reshape(len(x), shape[0] if each else 1, -1)
    least, most = (tuple(end.double().tolist()) for end in (rows.amin((0, 2)), rows.amax((0, 2))))
    return RawInputs(shape, dtype, least, most, columns=tuple(columns))


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
