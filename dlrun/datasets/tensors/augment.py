"""Random variations of a training batch, on its device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from dlrun.errors import ConfigError, did_you_mean
from dlrun.randomness import FLIP, coins, key
from dlrun.types import Samples

Fill = Literal["border", "reflect", "zero"]


@dataclass(frozen=True)
class Augment:
    """Vary images [B, C, H, W] at random.

    Each image has its own draw.

    `shift` moves an image by up to that many pixels along each axis; `fill` says what the gap gets: the border's
    values, the image mirrored at its border, or zero. `flip` mirrors left and right with probability 1/2; `alternating`
    draws it in the first epoch and does the opposite in each next one, so that two epochs show an image both ways
    (Jordan 2024, arXiv:2404.00498, section 3.6). `crop` cuts out a part with at least that fraction of the height and
    the width, and scales it back up. The same state of the generator, and the same samples and epoch, give the same
    batch.

    >>> x = torch.arange(4.0).view(1, 1, 2, 2)
    >>> Augment()(x, torch.Generator()) is x
    True
    """

    shift: int = 0
    flip: bool | Literal["alternating"] = False
    crop: float = 1.0
    fill: Fill = "border"

    def __call__(self, x: Tensor, generator: torch.Generator, samples: Samples | None = None) -> Tensor:
        """A varied copy of `x`, in its shape and type."""
        return self.vary_part(x, generator, samples, whole=len(x))

    def vary_part(
        self, x: Tensor, generator: torch.Generator, samples: Samples | None, *, whole: int, start: int = 0
    ) -> Tensor:
        """The images from `start` on of a batch of `whole`, varied as there."""

        def draw(numbers: int) -> Tensor:
            return _uniform((numbers, whole), generator, x.device)[:, start : start + len(x)]

        if self.crop < 1:
            x = _crop(x, self.crop, draw(3))
        if self.shift or self.flip:
            # three draws an image whatever is asked for: `flip` does not change the shifts
            x = self._move(x, draw(3)[:, :, None], samples)
        return x

    def _move(self, x: Tensor, draws: Tensor, samples: Samples | None) -> Tensor:
        _, _, height, width = x.shape
        dy, dx = ((draws[:2] * (2 * self.shift + 1)).floor() - self.shift).long()
        rows, above = _inside(torch.arange(height, device=x.device) + dy, height, self.fill)
        columns, beside = _inside(torch.arange(width, device=x.device) + dx, width, self.fill)
        if self.flip:
            mirrored = draws[2] < 0.5 if self.flip is True else self._alternate(samples)[:, None]
            columns = torch.where(mirrored, width - 1 - columns, columns)
        # one gather reads all pixels
        index = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
        moved = x.flatten(2).gather(2, index[:, None].expand(-1, x.shape[1], -1)).view(x.shape)
        if self.fill == "zero" and self.shift:
            moved = moved * (above[:, :, None] & beside[:, None, :])[:, None]
        return moved

    def _alternate(self, samples: Samples | None) -> Tensor:
        if samples is None:
            raise ValueError("flip=alternating needs the samples of the batch, and their epoch")
        return coins(samples.index, key(samples.seed, FLIP)) ^ bool(samples.epoch % 2)


def make_augment(options: Mapping[str, int | float | bool | str] | None, shape: tuple[int, ...]) -> Augment | None:
    """The augmentation of options such as `{shift: 2, flip: true}`.

    Raises `ConfigError` for an unknown name, a value out of range, or inputs other than images.
    """
    if not options:
        return None
    valid = [field.name for field in fields(Augment)]
    for name, value in options.items():
        if name not in valid:
            hint = did_you_mean(name, valid)
            raise ConfigError(f"dataset.augment has no `{name}`.{hint} Valid are {', '.join(valid)}.")
        if not _in_range(name, value):
            raise ConfigError(
                f"dataset.augment.{name}={value}: expected a number of pixels for shift, {', '.join(get_args(Fill))} "
                "for fill, true, false or alternating for flip, a fraction above 0 and up to 1 for crop."
            )
    if len(shape) != 3:
        raise ConfigError(f"dataset.augment is for images; a sample of this data set has the shape {list(shape)}.")
    if int(options.get("shift", 0)) >= min(shape[1:]):
        raise ConfigError(
            f"dataset.augment.shift={options['shift']} is as large as the image of {shape[1]}×{shape[2]} pixels, and "
            f"may leave nothing of it. Type for example dataset.augment.shift={max(1, min(shape[1:]) // 8)}"
        )
    return Augment(**options)  # type: ignore[arg-type]  # the types were checked above


def _in_range(name: str, value: object) -> bool:
    if name == "flip":
        return isinstance(value, bool) or value == "alternating"
    if name == "fill":
        return value in get_args(Fill)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value <= 1 if name == "crop" else isinstance(value, int) and value >= 0


def _inside(places: Tensor, size: int, fill: Fill) -> tuple[Tensor, Tensor]:
    """The pixels to read for `places` along an axis, and whether they lie in the image."""
    inside = (places >= 0) & (places < size)
    if fill == "reflect":  # the border itself is not repeated, as in `torch.nn.functional.pad`
        return (size - 1) - ((size - 1) - places.abs()).abs(), inside
    return places.clamp(0, size - 1), inside


def _crop(x: Tensor, smallest: float, draws: Tensor) -> Tensor:
    # a size and two places an image
    draws = draws.to(x.dtype)
    side = smallest + (1 - smallest) * draws[0]
    # coordinates run from -1 to 1: a part of side s has its centre within ±(1 - s)
    centre = (2 * draws[1:] - 1) * (1 - side)
    zero = torch.zeros_like(side)
    maps = torch.stack([torch.stack([side, zero, centre[0]], 1), torch.stack([zero, side, centre[1]], 1)], 1)
    grid = functional.affine_grid(maps, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _uniform(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    # a generator draws on its own device alone
    return torch.rand(shape, generator=generator, device=generator.device).to(device, non_blocking=True)
