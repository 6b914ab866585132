"""What the data sets of two classes in the plane share: how samples become splits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlrun.datasets.tensors.splits import seeded_generator
from dlrun.datasets.tensors.tensors import Pair, from_tensors
from dlrun.errors import ConfigError
from dlrun.types import Data


def two_classes(
    name: str,
    curve: Callable[[Tensor, Tensor], Tensor],
    *,
    n: int,
    noise: float,
    data_seed: int,
    validation_size: int | float,
    test_size: int,
    split_seed: int,
    normalise: bool,
) -> Data:
    """Return samples around two curves in the plane, x float32 [N, 2], as many of one class as of the other.

    `curve` maps places along it, uniform in [0, 1], [N], and classes, [N], to points [N, 2]. `data_seed`
    draws the `n` samples of training and validation; the test split is `test_size` further ones, drawn
    by `split_seed` alone.
    """
    for key, value, least in (("n", n, 2), ("test_size", test_size, 0), ("noise", noise, 0)):
        if not value >= least:
            raise ConfigError(f"dataset.{key}={value}: expected is at least {least}.")

    def samples(count: int, generator: torch.Generator) -> Pair:
        place, classes = torch.rand(count, generator=generator), torch.arange(count) % 2
        points = curve(place, classes)
        return points + noise * torch.randn(points.shape, generator=generator), classes

    return from_tensors(
        name,
        samples(n, seeded_generator(name, data_seed)),
        test=samples(test_size, seeded_generator(f"{name} test", split_seed)) if test_size else None,
        task="classification",
        classes=2,
        validation_size=validation_size,
        split_seed=split_seed,
        normalise=normalise,
    )
