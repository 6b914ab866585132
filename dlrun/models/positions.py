"""Rotary positions (Su et al. 2021, RoFormer, arXiv:2104.09864).

A pair of features of a query or key at position t is turned by the angle t·θ_i, θ_i = 10000^(-2i/d). So the product of
a query and a key depends on their distance alone. Changed: feature i is paired with i + d/2 instead of its neighbour,
a fixed permutation, which saves interleaving the features in memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dlrun.errors import ConfigError

BASE = 10_000.0  # the paper's


class Rotation(NamedTuple):
    """The cosines and sines of the angles, each [T, d/2]."""

    cosine: Tensor
    sine: Tensor

    def at(self, start: int, length: int) -> Rotation:
        """The rotation of `length` positions from `start` on."""
        return Rotation(self.cosine[start : start + length], self.sine[start : start + length])


def rotation(context: int, size: int) -> Rotation:
    """The rotation of heads of `size` features at `context` positions.

    Raises `ConfigError` for an odd number of features.
    """
    if size % 2:
        raise ConfigError(
            f"model.positions=rotary turns pairs of features, and each head has {size}. Type for example"
            f" `model.positions=learned`, or give a width that is an even multiple of the heads."
        )
    # in double precision: the angle of a late position is a large number
    frequencies = BASE ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.outer(torch.arange(context, dtype=torch.float64), frequencies)
    return Rotation(angles.cos().float(), angles.sin().float())


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Turn x [B, T, ..., d] by its positions' angles.

    >>> quarter = Rotation(torch.tensor([[0.0]]), torch.tensor([[1.0]]))
    >>> rotate(torch.tensor([[[3.0, 4.0]]]), quarter)
    tensor([[[-4.,  3.]]])
    """
    shape = (by.cosine.shape[0], *[1] * (x.ndim - 3), -1)
    cosine, sine = by.cosine.view(shape), by.sine.view(shape)
    # (a, b) is a point of the plane, turned by the angle
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine], dim=-1).type_as(x)
