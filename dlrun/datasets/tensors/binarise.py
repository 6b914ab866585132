"""Pixels of two values: black and white by a threshold, or drawn with their grey level as the probability of white.

The draw is that of R. Salakhutdinov and I. Murray (On the Quantitative Analysis of Deep Belief Networks, ICML 2008),
once for each image, as in the data set of H. Larochelle (static binarisation), though with other random numbers.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dlrun.datasets.splitting.seeds import seeded_generator
from dlrun.errors import ConfigError

Binarise = Literal["threshold", "stochastic"]

CHUNK = 4096  # images: float32 of all of MNIST would take 188 MB


def binarise(x: Tensor, how: Binarise, *, pixels: tuple[float, float] | None, purpose: str, seed: int) -> Tensor:
    """Pixels 0 and 1, uint8, of raw ones between `pixels`, black and white.

    `threshold`: 1 above the middle. `stochastic`: 1 with the probability (x - black) / (white - black); the draw of an
    image depends on the `purpose`, the `seed` and its place in `x` alone. Raises `ConfigError` without `pixels`.

    >>> grey = torch.tensor([[[[0, 100, 200, 255]]]])
    >>> binarise(grey, "threshold", pixels=(0, 255), purpose="train", seed=0).tolist()
    [[[[0, 0, 1, 1]]]]
    """
    if pixels is None:
        raise ConfigError(f"dataset.binarise={how} needs the values of black and white: give pixels=(0, 255).")
    black, white = pixels
    draw = seeded_generator(f"binarise {purpose}", seed)
    found = []
    for some in torch.split(x, CHUNK):
        level = (some.float() - black) / (white - black)
        bound = torch.rand(some.shape, generator=draw) if how == "stochastic" else 0.5
        found.append((level > bound).to(torch.uint8))
    return torch.cat(found)
