"""Noisy samples of a smooth function on [0, 1], to fit polynomials to."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlrun.datasets.splitting.seeds import seeded_generator
from dlrun.datasets.tensors.checks import Pair
from dlrun.datasets.tensors.tensors import from_tensors
from dlrun.errors import ConfigError
from dlrun.types import Data

__all__ = ["polynomial"]


def smooth(x: Tensor) -> Tensor:
    """f*(x) = 0.5 + 0.8 sin(2.5 π x), within [-0.3, 1.3] on [0, 1].

    >>> smooth(torch.tensor([0.0, 0.2, 0.6])).tolist()
    [0.5, 1.2999999523162842, -0.30000001192092896]
    """
    return 0.5 + 0.8 * torch.sin(2.5 * math.pi * x)


def polynomial(
    *,
    n: int = 40,
    noise: float = 0.1,
    data_seed: int = 0,
    validation_size: int | float = 10,
    test_size: int = 1000,
    train_size: int | None = None,
    split_seed: int = 0,
) -> Data:
    """Samples y = f*(x) + `noise`·ε, x and y float32 [N, 1].

    x is uniform on [0, 1], ε normal. `data_seed` draws `n` samples; `split_seed` takes `validation_size` of them
    (below 1: that fraction), and `train_size` keeps the first of the rest. The test split is `test_size` further
    samples, drawn by `split_seed` alone: the same for every `data_seed`. `Data.truth` is f*. Raises `ConfigError` for
    sizes out of range.
    """
    for key, value, least in (("n", n, 1), ("test_size", test_size, 0), ("noise", noise, 0)):
        if not value >= least:
            raise ConfigError(f"dataset.{key}={value}: expected at least {least}.")
    return from_tensors(
        "polynomial",
        _samples(n, noise, seeded_generator("polynomial", data_seed)),
        test=_samples(test_size, noise, seeded_generator("polynomial test", split_seed)) if test_size else None,
        task="regression",
        validation_size=validation_size,
        train_size=train_size,
        split_seed=split_seed,
        truth=smooth,
    )


def _samples(n: int, noise: float, generator: torch.Generator) -> Pair:
    # x before the noise: another `noise` leaves the places as they are
    x = torch.rand(n, 1, generator=generator)
    return x, smooth(x) + noise * torch.randn(n, 1, generator=generator)
