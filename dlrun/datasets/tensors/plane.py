"""Two classes of points in the plane, scattered around two curves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dlrun.datasets.splitting.seeds import seeded_generator
from dlrun.datasets.tensors.checks import Pair
from dlrun.datasets.tensors.tensors import from_tensors
from dlrun.errors import ConfigError
from dlrun.types import Data


@dataclass(frozen=True)
class PlaneOptions:
    """The arguments of `moons` and `spirals`, but for the curve.

    Raises `ConfigError` for numbers out of range.
    """

    n: int
    noise: float
    data_seed: int
    validation_size: int | float
    test_size: int
    split_seed: int
    normalise: bool

    def __post_init__(self) -> None:
        for key, value, least in (("n", self.n, 2), ("test_size", self.test_size, 0), ("noise", self.noise, 0)):
            if not value >= least:
                raise ConfigError(f"dataset.{key}={value}: expected at least {least}.")


def two_classes(name: str, curve: Callable[[Tensor, Tensor], Tensor], options: PlaneOptions) -> Data:
    """Points around two curves, x float32 [N, 2].

    Every other point is of class 1. `curve` maps places along it, uniform in [0, 1], [N], and classes [N] to points
    [N, 2].
    """

    def draw(count: int, generator: torch.Generator) -> Pair:
        place, classes = torch.rand(count, generator=generator), torch.arange(count) % 2
        points = curve(place, classes)
        return points + options.noise * torch.randn(points.shape, generator=generator), classes

    test = None
    if options.test_size:
        # by the split's seed alone: runs on different training data share the test split
        test = draw(options.test_size, seeded_generator(f"{name} test", options.split_seed))
    return from_tensors(
        name,
        draw(options.n, seeded_generator(name, options.data_seed)),
        test=test,
        task="classification",
        classes=2,
        validation_size=options.validation_size,
        split_seed=options.split_seed,
        normalise=options.normalise,
    )
