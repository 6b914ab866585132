"""Random variations of a training batch, on its device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from dlrun.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Augment:
    """Vary images [B, C, H, W] at random.

    Each image has its own draw.

    `shift` moves an image by up to that many pixels along each axis; the border's values fill the gap. `flip` mirrors
    left and right with probability 1/2. `crop` cuts out a part with at least that fraction of the height and the
    width, and scales it back up. The same state of the generator gives the same batch.

    >>> x = torch.arange(4.0).view(1, 1, 2, 2)
    >>> Augment()(x, torch.Generator()) is x
    True
    """

    shift: int = 0
    flip: bool = False
    crop: float = 1.0

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """A varied copy of `x`, in its shape and type."""
        if self.crop < 1:
            x = _crop(x, self.crop, generator)
        if self.shift or self.flip:
            x = _move(x, self.shift, self.flip, generator)
        return x


def make_augment(options: Mapping[str, int | float | bool] | None, shape: tuple[int, ...]) -> Augment | None:
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
                f"dataset.augment.{name}={value}: expected a number of pixels for shift, true or false "
                "for flip, a fraction above 0 and up to 1 for crop."
            )
    if len(shape) != 3:
        raise ConfigError(f"dataset.augment is for images; a sample of this data set has the shape {list(shape)}.")
    return Augment(**options)  # type: ignore[arg-type]  # the types were checked above


def _in_range(name: str, value: object) -> bool:
    if name == "flip":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value <= 1 if name == "crop" else isinstance(value, int) and value >= 0


def _move(x: Tensor, shift: int, flip: bool, generator: torch.Generator) -> Tensor:
    b, _, height, width = x.shape
    # three draws an image whatever is asked for: `flip` does not change the shifts
    moves = _uniform((3, b, 1), generator, x.device)
    dy, dx = ((moves[:2] * (2 * shift + 1)).floor() - shift).long()
    rows = (torch.arange(height, device=x.device) + dy).clamp_(0, height - 1)
    columns = (torch.arange(width, device=x.device) + dx).clamp_(0, width - 1)
    if flip:
        columns = torch.where(moves[2] < 0.5, width - 1 - columns, columns)
    # rows and columns clamped to the image repeat the border; one gather reads all pixels
    index = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    return x.flatten(2).gather(2, index[:, None].expand(-1, x.shape[1], -1)).view(x.shape)


def _crop(x: Tensor, smallest: float, generator: torch.Generator) -> Tensor:
    # a size and two places an image
    draws = _uniform((3, len(x)), generator, x.device).to(x.dtype)
    side = smallest + (1 - smallest) * draws[0]
    # coordinates run from -1 to 1: a part of side s has its centre within ±(1 - s)
    centre = (2 * draws[1:] - 1) * (1 - side)
    zero = torch.zeros_like(side)
    maps = torch.stack([torch.stack([side, zero, centre[0]], 1), torch.stack([zero, side, centre[1]], 1)], 1)
    grid = functional.affine_grid(maps, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _uniform(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    # drawn where the generator lies, so that every device sees the same numbers
    return torch.rand(shape, generator=generator, device=generator.device).to(device, non_blocking=True)
