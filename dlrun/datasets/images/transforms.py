"""Transforms of torchvision as an augmentation: each picture by itself, as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlrun.datasets.tensors.augment import make_augment
from dlrun.datasets.tensors.standardise import Standardise
from dlrun.errors import ConfigError, RunError
from dlrun.randomness import SAMPLE, key, preserve_generators, seed_libraries
from dlrun.types import Augmentation, Samples


class Transforms:
    """Vary prepared pictures [B, C, H, W] by transforms, one picture at a time.

    A transform gets the bytes of a picture, uint8 [C, H, W], and returns such. What it draws from the generators of
    torch, Python and numpy is a function of the seed, the epoch and the sample.
    """

    def __init__(self, transforms: Sequence[nn.Module], prepare: Standardise) -> None:
        self._transforms = transforms
        self._prepare = prepare

    def __call__(self, x: Tensor, generator: torch.Generator, samples: Samples) -> Tensor:
        """A varied copy of `x`, in its shape and type."""
        raw = self._prepare.undo(x.cpu()).round().clamp(0, 255).to(torch.uint8)
        epoch = key(samples.seed, SAMPLE, samples.epoch)
        with preserve_generators():
            seeds = [key(epoch, SAMPLE, i) for i in samples.index.tolist()]
            varied = [self._vary(one, seed) for one, seed in zip(raw, seeds, strict=True)]
        return self._prepare(torch.stack(varied)).to(x.device)

    def _vary(self, picture: Tensor, seed: int) -> Tensor:
        seed_libraries(seed)
        varied = picture
        for transform in self._transforms:
            made: Any = transform(varied)
            if not isinstance(made, Tensor) or made.dtype != torch.uint8:
                raise RunError(
                    f"{type(transform).__name__} returned {_kind(made)}; expected a picture uint8. Leave out what "
                    "makes other numbers of them, as ToDtype and Normalize: dataset.normalise does it."
                )
            varied = made
        if varied.shape != picture.shape:
            raise RunError(
                f"dataset.augment makes a picture {list(varied.shape)} of one {list(picture.shape)}. Give its crop or "
                f"resize the size {list(picture.shape[1:])}."
            )
        return varied


def make_augmentation(given: Any, shape: tuple[int, ...], prepare: Standardise) -> Augmentation | None:
    """The augmentation of `dataset.augment`: dlrun's own options, or a transform or several.

    Raises `ConfigError` for anything else.
    """
    if given is None or isinstance(given, Mapping):
        return make_augment(given, shape)
    transforms = list(given) if isinstance(given, list | tuple) else [given]
    for each in transforms:
        if not callable(each):
            raise ConfigError(
                f"dataset.augment: {each!r} is no transform. Expected are dlrun's own options, such as "
                "{shift: 2, flip: true}, or transforms, such as "
                "[{_target_: torchvision.transforms.v2.RandomHorizontalFlip}]."
            )
    return Transforms(transforms, prepare) if transforms else None


def _kind(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
