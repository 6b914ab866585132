"""Two spirals that wind around each other in the plane, two classes.

After K. Lang, M. Witbrock, Learning to Tell Two Spirals Apart, 1988.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from dlrun.datasets.tensors.plane import PlaneOptions, two_classes
from dlrun.types import Data

__all__ = ["spirals"]


def arms(place: Tensor, classes: Tensor, turns: float) -> Tensor:
    """Points [N, 2] on two spirals.

    The radius is r = √`place`, the angle 2π·`turns`·r, half a turn further for class 1.
    """
    # the root spreads points evenly along the arm, not along the radius
    radius = place.sqrt()
    angle = 2 * math.pi * turns * radius + math.pi * classes
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)


def spirals(
    *,
    n: int = 1000,
    noise: float = 0.02,
    turns: float = 1.5,
    data_seed: int = 0,
    validation_size: int | float = 200,
    test_size: int = 1000,
    split_seed: int = 0,
    normalise: bool = True,
) -> Data:
    """Points around two spirals, x float32 [N, 2].

    The spirals have radius 1; the points are off by `noise`·ε with ε normal. `data_seed` draws `n` samples;
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
    return two_classes("spirals", partial(arms, turns=turns), options)
