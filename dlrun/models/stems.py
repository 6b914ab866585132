"""The first layers of networks for pictures, by the size of these.

The networks for ImageNet reduce pictures of 224×224 by a large strided convolution before anything else. Of 32×32
pixels nothing would be left; the usual variant for CIFAR has a 3×3 convolution without stride there, and no pooling
behind it.
"""

from __future__ import annotations

from typing import Literal

from dlrun.errors import ConfigError

Stem = Literal["imagenet", "cifar"]

SMALL = 64
"""Pixels of a side below which pictures are small."""


def choose_stem(stem: Stem | None, input_shape: tuple[int, ...]) -> Stem:
    """The stem that is asked for, else `cifar` for sides below 64 pixels.

    Raises `ConfigError` for inputs that are no pictures.
    """
    if len(input_shape) != 3:
        raise ConfigError(
            f"This model needs pictures [channels, height, width]; the inputs of this data set have the shape "
            f"{list(input_shape)}. Type for example dataset=cifar10, or model=mlp."
        )
    return stem or ("cifar" if min(input_shape[1:]) < SMALL else "imagenet")


def check_side(input_shape: tuple[int, ...], *, smallest: int, stem: Stem) -> None:
    """Raise `ConfigError` for pictures of which the layers would leave nothing."""
    if min(input_shape[1:]) < smallest:
        advice = "model.stem=cifar" if stem == "imagenet" else "dataset=cifar10, or model=mlp"
        raise ConfigError(
            f"With model.stem={stem} this model needs pictures of at least {smallest}×{smallest} pixels; "
            f"the inputs of this data set have the shape {list(input_shape)}. Type {advice}, or take larger ones."
        )


def pooled(side: int, kernel: int = 3, *, ceil: bool = False) -> int:
    """A side after pooling in steps of 2.

    >>> pooled(55), pooled(112), pooled(112, ceil=True)
    (27, 55, 56)
    """
    steps = side - kernel + (1 if ceil else 0)
    return steps // 2 + 1
