"""Two interleaved half circles in the plane, two classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlrun.datasets.tensors.plane import PlaneOptions, two_classes
from dlrun.types import Data

__all__ = ["moons"]


def half_circles(place: Tensor, classes: Tensor) -> Tensor:
    """Points [N, 2] on two half circles.

    (cos t, sin t) of class 0 and (1 - cos t, 1/2 - sin t) of class 1, with t = π·`place`.
    """
    t = math.pi * place
    upper = torch.stack([t.cos(), t.sin()], 1)
    # around (1, 1/2), open upwards: each reaches into the other
    lower = torch.stack([1 - t.cos(), 0.5 - t.sin()], 1)
    return torch.where(classes[:, None] == 0, upper, lower)


def moons(
    *,
    n: int = 1000,
    noise: float = 0.1,
    data_seed: int = 0,
    validation_size: int | float = 200,
    test_size: int = 1000,
    split_seed: int = 0,
    normalise: bool = True,
) -> Data:
    """Points around two half circles, x float32 [N, 2].

    The circles have radius 1; the points are off by `noise`·ε with ε normal. `data_seed` draws `n` samples;
    `split_seed` takes `validation_size` of them (below 1: that fraction) and draws `test_size` further ones. Raises
    `ConfigError` for sizes out of range.
    """
    options = PlaneOptions(
        n=n,
        noise=noise,
        data_seed=data_seed,
        validation_size=validation_size,
        test_size=test_size,
        split_seed=split_seed,
        normalise=normalise,
    )
    return two_classes("moons", half_circles, options)
