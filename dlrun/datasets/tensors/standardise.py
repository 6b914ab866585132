"""The preparation of raw inputs: shape, type, mean and deviation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dlrun.errors import DataError

FAR = 1000.0
"""Deviations between the mean and 0 from which on float32 would keep less than 1e-4 of one: float64 is taken."""


def is_far(mean: Iterable[float], deviation: Iterable[float]) -> bool:
    """Whether some mean is so far from 0 that its deviation has few digits in float32."""
    return any(abs(m) > FAR * d for m, d in zip(mean, deviation, strict=True))


@dataclass(frozen=True)
class Standardise:
    """Map raw inputs to a model's: (x - mean) / deviation.

    `mean` and `deviation` have one value for all, or one for each index of a sample's first axis (the channels of an
    image, the components of a vector). Inputs may come flat, [N, 784], or without the axis of a single channel,
    [N, 28, 28]. With `indices` they are only cast, to int64.

    >>> prepare = Standardise((1, 2), mean=(1.0,), deviation=(2.0,))
    >>> prepare(torch.tensor([[3, 5]])).tolist()
    [[[1.0, 2.0]]]
    """

    # its repr is part of a data set's fingerprint: another field ends the reuse of earlier runs
    shape: tuple[int, ...]
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)
    indices: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """Prepared inputs, float32 [N, *shape], or int64 indices.

        Raises `DataError` for another number of values a sample, and for indices that are not whole.
        """
        if x.ndim == 0 or x[:1].numel() not in (0, math.prod(self.shape)):
            given, flat = list(x.shape), math.prod(self.shape)
            raise DataError(f"The inputs have shape {given}; expected [N, {_list(self.shape)}] or [N, {flat}].")
        x = x.reshape(len(x), *self.shape)
        if self.indices:
            if x.is_floating_point() and not bool((x == x.round()).all()):
                raise DataError("The inputs are not whole numbers; those of this data set are indices.")
            return x.to(torch.int64)
        if self.mean == (0.0,) and self.deviation == (1.0,):
            return x.to(torch.float32)
        if self.is_far:
            x = x.to(torch.float64)
            return ((x - _along(self.mean, x)) / _along(self.deviation, x)).float()
        # a copy even of float32: the next line writes into it
        x = x.to(torch.float32, copy=True)
        return x.sub_(_along(self.mean, x)).div_(_along(self.deviation, x))

    @property
    def is_far(self) -> bool:
        """Whether raw inputs need float64, as the seconds of today do."""
        return is_far(self.mean, self.deviation)

    def undo(self, x: Tensor) -> Tensor:
        """Raw inputs of prepared ones, [N, *shape]: float32, or float64 where that would lose them.

        >>> Standardise((2,), mean=(1.0,), deviation=(2.0,)).undo(torch.tensor([[0.0, 1.0]]))
        tensor([[1., 3.]])
        """
        x = x.double() if self.is_far else x
        return x * _along(self.deviation, x) + _along(self.mean, x)


def mean_and_deviation(x: Tensor, chunk: int = 1024) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and deviation of `x` [N, C, ...] for each C.

    The deviation is that of the population. Summed in float64, `chunk` samples at a time. A constant channel gets the
    deviation 1.
    """
    axes = tuple(a for a in range(x.ndim) if a != 1)
    # shifted by a value near the mean: E[x²] - E[x]² would cancel for a mean far from 0
    shift = x[:chunk].double().mean(axes, keepdim=True)
    total = squares = torch.zeros(x.shape[1], dtype=torch.float64)
    for start in range(0, len(x), chunk):
        some = x[start : start + chunk].double() - shift
        total, squares = total + some.sum(axes), squares + some.square().sum(axes)
    n = x.numel() // x.shape[1]
    mean = total / n
    # rounding may leave a constant channel slightly below 0
    deviation = (squares / n - mean.square()).clamp(min=0).sqrt()
    deviation = torch.where(deviation > 0, deviation, 1.0)
    return tuple((mean + shift.flatten()).tolist()), tuple(deviation.tolist())


def _along(values: tuple[float, ...], x: Tensor) -> Tensor | float:
    if len(values) == 1:
        return values[0]
    return torch.tensor(values, dtype=x.dtype, device=x.device).view(-1, *[1] * (x.ndim - 2))


def _list(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
