"""Transforms of torchvision as an augmentation: each picture by itself, as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from dlrun.datasets.samples.on_demand import MapStyleSamples
from dlrun.datasets.tensors.augment import make_augment
from dlrun.datasets.tensors.standardise import Standardise
from dlrun.errors import ConfigError, RunError
from dlrun.nests.batch import Batch
from dlrun.randomness import SAMPLE, key, preserve_generators, seed_libraries
from dlrun.types import Augmentation, Samples

LEAVE_OUT = (
    "Leave out what takes or makes other numbers than bytes, as ToDtype and Normalize: dataset.normalise does it."
)


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
        epoch, varied = key(samples.seed, SAMPLE, samples.epoch), []
        with preserve_generators():
            for one, i in zip(x.cpu(), samples.index.tolist(), strict=True):
                # as `engine.reading.loading` seeds them for a sample that is read
                seed_libraries(key(epoch, SAMPLE, i))
                varied.append(self.vary(one))
        return torch.stack(varied).to(x.device)

    def reading(self, dataset: MapStyleSamples) -> Varied:
        """The samples of a data set, varied as they are read."""
        return Varied(dataset, self)

    def vary(self, x: Tensor) -> Tensor:
        """One prepared picture [C, H, W], varied."""
        picture = self._prepare.undo(x[None])[0].round().clamp(0, 255).to(torch.uint8)
        varied = picture
        for transform in self._transforms:
            name = getattr(transform, "__name__", type(transform).__name__)
            try:
                made: Any = transform(varied)
            except (TypeError, ValueError) as error:
                raise RunError(f"{name} failed for a picture {_kind(varied)}: {error} {LEAVE_OUT}") from error
            if not isinstance(made, Tensor) or made.dtype != torch.uint8:
                raise RunError(f"{name} returned {_kind(made)}; expected a picture uint8. {LEAVE_OUT}")
            varied = made
        if varied.shape != picture.shape:
            raise RunError(
                f"dataset.augment makes a picture {list(varied.shape)} of one {list(picture.shape)}. Give its crop or "
                f"resize the size {list(picture.shape[1:])}."
            )
        return self._prepare(varied[None])[0]


class Varied(Dataset[Batch]):
    """The samples of a data set, their pictures varied as they are read."""

    def __init__(self, dataset: MapStyleSamples, transforms: Transforms) -> None:
        self._dataset, self._transforms = dataset, transforms
        self.collate = dataset.collate

    def __len__(self) -> int:
        return len(self._dataset)

    def name(self, i: int) -> str:
        """The name of a sample in messages."""
        return self._dataset.name(i)

    def __getitem__(self, i: int) -> Batch:
        sample = self._dataset[i]
        varied: Batch = sample._replace(x=self._transforms.vary(sample.x))
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
