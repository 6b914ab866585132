"""Wrong labels on purpose, for studies of label noise."""

from __future__ import annotations

import torch
from torch import Tensor

from dlrun.datasets.splitting.seeds import seeded_generator
from dlrun.datasets.tensors.checks import Pair
from dlrun.errors import ConfigError
from dlrun.types import Spec


def add_label_noise(pair: Pair, spec: Spec, *, share: float, seed: int) -> Pair:
    """Samples with noise in their classes. Raises `ConfigError` for a task without classes."""
    x, y = pair
    if spec.classes is None:
        raise ConfigError(f"dataset.label_noise={share}: a data set for {spec.task} has no classes to confuse.")
    return x, with_label_noise(y.to(torch.int64), share, classes=spec.classes, seed=seed)


def with_label_noise(y: Tensor, share: float, *, classes: int, seed: int) -> Tensor:
    """Classes [N], a `share` of them wrong.

    The seed draws the samples, and for each another class, uniformly. Raises `ConfigError` for a share outside of 0 to
    1.

    >>> y = torch.zeros(10, dtype=torch.int64)
    >>> int((with_label_noise(y, 0.3, classes=5, seed=0) != y).sum())
    3
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"dataset.label_noise={share}: expected a share of the training labels, from 0 to 1.")
    generator = seeded_generator("label noise", seed)
    chosen = torch.randperm(len(y), generator=generator)[: round(share * len(y))]
    noisy = y.clone()
    # plus 1 … classes - 1, modulo the classes: never the right one
    noisy[chosen] = (y[chosen] + torch.randint(1, classes, (len(chosen),), generator=generator).to(y.dtype)) % classes
    return noisy
