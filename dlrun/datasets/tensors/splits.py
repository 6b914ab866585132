"""Cutting samples into training, validation and test parts, by a seed of its own."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor

from dlrun.errors import ConfigError


class SplitIndices(NamedTuple):
    """The indices of the three parts, ascending, int64; disjoint."""

    train: Tensor
    validation: Tensor
    test: Tensor


def seeded_generator(purpose: str, seed: int) -> torch.Generator:
    """Return a generator of its own for `purpose`: no two purposes share numbers, whatever their seeds.

    >>> a, b = seeded_generator("moons", 0), seeded_generator("split", 0)
    >>> a.initial_seed() == b.initial_seed()
    False
    """
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


def cut(
    n: int,
    *,
    seed: int,
    validation_size: int | float = 0,
    test_size: int | float = 0,
    train_size: int | None = None,
) -> SplitIndices:
    """Cut `n` samples at random: first the test part, then validation, the rest is for training.

    So another validation size leaves the test part as it is. A size is a number of samples, or below
    1 a fraction of `n`; of the rest `train_size` keeps the first so many that were drawn. Raises
    `ConfigError` for sizes that leave nothing to train on.

    >>> part = cut(10, seed=0, validation_size=0.2, test_size=3)
    >>> [len(p) for p in part]
    [5, 2, 3]
    """
    test, validation = sample_count(test_size, n, "test_size"), sample_count(validation_size, n, "validation_size")
    left = n - test - validation
    if left < 1:
        key, size, most = ("test_size", test_size, n) if test >= n else ("validation_size", validation_size, n - test)
        raise ConfigError(
            f"dataset.{key}={size} leaves nothing to train on: of {n} samples {min(test, n)} are for the test. "
            f"Give a number below {most}, or a fraction below {most / n:.3g}."
        )
    if train_size is not None and not 1 <= train_size <= left:
        raise ConfigError(f"dataset.train_size={train_size}: expected 1 to {left}, or null for all of them.")
    order = torch.randperm(n, generator=seeded_generator("split", seed))
    parts = order[test + validation :][:train_size], order[test : test + validation], order[:test]
    # ascending, so that a part that is the whole is the whole as it lies in the file
    return SplitIndices(*(part.sort().values for part in parts))


def sample_count(size: int | float, n: int, key: str) -> int:
    """Return a size as a number of samples; below 1 it is a fraction of `n`.

    Raises `ConfigError` if it is neither.
    """
    if 0 <= size < 1:
        return round(size * n)
    if size < 0 or size != int(size):
        raise ConfigError(f"dataset.{key}={size}: expected a number of samples (0, 100, …), or a fraction below 1.")
    return int(size)
