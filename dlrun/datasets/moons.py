"""Two interleaved half circles in the plane, two classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlrun.datasets.tensors.plane import two_classes
from dlrun.types import Data

__all__ = ["moons"]


def half_circles(place: Tensor, classes: Tensor) -> Tensor:
    """Return points [N, 2]: class 0 on (cos t, sin t), class 1 on (1 - cos t, 1/2 - sin t), t = π·`place`."""
    t = math.pi * place
    upper = torch.stack([t.cos(), t.sin()], 1)
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
    """Return points around two half circles of radius 1, x float32 [N, 2], off by `noise`·ε.

    `data_seed` draws the `n` samples of training and validation, which `split_seed` parts; the test
    split is `test_size` further samples, drawn by `split_seed` alone.
    """
    return two_classes(
        "moons",
        half_circles,
        n=n,
        noise=noise,
        data_seed=data_seed,
        validation_size=validation_size,
        test_size=test_size,
        split_seed=split_seed,
        normalise=normalise,
    )
