"""A picture in a file, as a sample: its black and white are mapped to those of the data set."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlrun.datasets.files.framing import (
    MOST_PIXELS,
    Framing,
    Transparent,
    deep_pixels,
    frame,
    is_deep,
    is_transparent,
    is_turned,
    make_opaque,
    open_picture,
    turn_upright,
)
from dlrun.errors import DataError
from dlrun.terminal import output
from dlrun.types import RawInputs

if TYPE_CHECKING:  # Pillow comes with matplotlib, and only pictures need it
    from PIL.Image import Image

BRIGHT = 128
"""Bytes of a data set whose largest value is below are no full range of 0 to 255, as the digits' 0 to 16."""

BACKGROUND = "Type --background black or --background white."

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Reading:
    """What a person says about a picture: the options of `dlrun predict`."""

    background: str | None = None
    """Black or white, behind a transparent picture."""
    pixels: tuple[float, float] | None = None
    """The data set's values of black and white."""
    raw: bool = False
    """The picture's numbers are the data set's own."""
    invert: bool = False
    """The picture's black and white are exchanged."""


def read_picture(path: Path, inputs: RawInputs, reading: Reading) -> Tensor:
    """A picture as one sample, [1, *shape], in the data set's own range.

    It is turned as its EXIF orientation says; palettes, 1 bit and 16 bits a pixel are read to their own scale. Raises
    `DataError` for a picture of another size, for a transparent one without a background, and if the data set's range
    is not known.
    """
    channels, height, width = _layout(path, inputs.shape)
    image = _open(path, inputs.shape)
    if inputs.resize is not None:
        background = reading.background or inputs.background
        pixels = _frame(path, image, Framing(channels, height, width, inputs.resize, background))
        return _as_sample(path, pixels, 255, inputs, reading)
    if image.size != (width, height):
        raise DataError(
            f"{path} has {image.width} × {image.height} pixels (width × height); the pictures of this run have "
            f"{width} × {height}. Resize it to these, as the data set's own were, for example by\n"
            f"{_resizing(path, width, height)}"
        )
    if reading.background and (channels == 4 or not is_transparent(image)):
        why = "the data set's own are transparent too" if channels == 4 else "it is opaque"
        output.warn(f"{path}: --background {reading.background} changes nothing: {why}.")
    image = image if channels == 4 else _opaque(path, image, reading.background)
    return _as_sample(path, *_numbers(path, image, channels), inputs, reading)


def _frame(path: Path, image: Image, framing: Framing) -> Tensor:
    """The pixels of a picture of any size, as the data set has its own, float64 [C, H, W]."""
    try:
        return frame(image, framing).double()
    except Transparent as problem:
        raise DataError(f"{path}: {problem}. {BACKGROUND}") from None


def _as_sample(path: Path, pixels: Tensor, white: int, inputs: RawInputs, reading: Reading) -> Tensor:
    channels = len(pixels)
    mapped = pixels if reading.raw else _map(path, pixels, white, inputs, reading)
    if reading.invert:
        mapped = _invert(mapped, *_ends(path, inputs, channels, reading))
    if len(inputs.shape) == 3 and inputs.shape[0] != channels:  # the channels last
        mapped = mapped.movedim(0, -1)
    return mapped.float().reshape(1, *inputs.shape)


def _resizing(path: Path, width: int, height: int) -> str:
    """A line for a shell."""
    code = f"from PIL import Image; import sys; Image.open(sys.argv[1]).resize(({width}, {height})).save(sys.argv[2])"
    resized = path.with_name(f"{path.stem}_{width}x{height}.png")
    return f'python -c "{code}" {shlex.quote(str(path))} {shlex.quote(str(resized))}'


def _layout(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of a sample."""
    if len(shape) == 3 and shape[0] in _MODES:
        return shape[0], shape[1], shape[2]
    if len(shape) == 3 and shape[2] in _MODES:
        return shape[2], shape[0], shape[1]
    side = math.isqrt(math.prod(shape))
    if len(shape) == 2 or (len(shape) == 1 and side * side == shape[0] > 1):
        return 1, *(shape if len(shape) == 2 else (side, side))
    raise DataError(f"{path} is a picture; a sample of this run has the shape {list(shape)}, which is none.")


def _open(path: Path, shape: tuple[int, ...]) -> Image:
    image = open_picture(path, most=max(MOST_PIXELS, math.prod(shape)))
    if is_turned(image):
        output.warn(f"{path} is turned as its EXIF orientation says.")
        return turn_upright(image)
    return image


def _opaque(path: Path, image: Image, background: str | None) -> Image:
    """A picture without transparency, laid on the background if it has some."""
    try:
        return make_opaque(image, background)
    except Transparent as problem:
        raise DataError(f"{path}: {problem}. {BACKGROUND}") from None


def _numbers(path: Path, image: Image, channels: int) -> tuple[Tensor, int]:
    """Pixels float64 [C, H, W], and the number of white."""
    import numpy

    if is_deep(image):
        grey = torch.from_numpy(deep_pixels(image).astype("float64"))
        opaque = [torch.full_like(grey, 65535)] if channels == 4 else []
        return torch.stack([grey] * min(channels, 3) + opaque), 65535
    if channels == 1 and image.mode not in ("1", "L"):
        colour = numpy.array(image.convert("RGB"))
        if (colour != colour[..., :1]).any():
            output.warn(f"{path} is a colour picture: it is turned to grey, as the data set is.")
    elif channels == 3 and image.mode in ("1", "L"):
        output.warn(f"{path} is a grey picture: its values are taken as red, green and blue.")
    # by way of colours: the numbers of a palette would mean something else
    values = numpy.array(image.convert(_MODES[channels]) if image.mode != "P" else _of_palette(image, channels))
    tensor = torch.from_numpy(values.astype("float64"))
    return (tensor[None] if tensor.ndim == 2 else tensor.movedim(-1, 0)), 255


def _of_palette(image: Image, channels: int) -> Image:
    return image.convert("RGB").convert(_MODES[channels]) if channels != 4 else image.convert("RGBA")


def _map(path: Path, pixels: Tensor, white: int, inputs: RawInputs, reading: Reading) -> Tensor:
    """Map 0 … white to the data set's black and white."""
    low, high = _ends(path, inputs, len(pixels), reading)
    largest, top = float(pixels.max()), max(high)
    if not reading.pixels and white == 255 and 0 < largest <= top < BRIGHT:
        raise DataError(
            f"{path}: its brightest pixel is {largest:g} of 255, and the inputs of this data set run to {top:g}. If "
            f"its numbers are the data set's own, type --raw; if it is that dark, type --pixels {min(low):g},{top:g}."
        )
    black, range_ = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (low, _minus(high, low)))
    mapped = black + pixels / white * range_
    # the data set's own are whole numbers, and other ones were never seen
    mapped = mapped.round() if _is_whole(inputs.dtype) else mapped
    if (min(low), max(high)) != (0.0, float(white)):
        target = f"{min(low):g} to {max(high):g}"
        output.warn(f"{path}: 0 to {white} are mapped to {target}, the data set's range. (--pixels LOW,HIGH: another)")
    return mapped


def _invert(pixels: Tensor, low: Sequence[float], high: Sequence[float]) -> Tensor:
    """Exchange black and white, but for how opaque a pixel is."""
    both = torch.tensor([a + b for a, b in zip(low, high, strict=True)], dtype=torch.float64).view(-1, 1, 1)
    inverted = both - pixels
    return torch.cat([inverted[:3], pixels[3:]])


def _ends(path: Path, inputs: RawInputs, channels: int, reading: Reading) -> tuple[Sequence[float], Sequence[float]]:
    """The data set's values of black and of white, as a person says or else as the run keeps them."""
    if reading.pixels:
        return reading.pixels[:1], reading.pixels[1:]
    return _range(path, inputs, channels)


def _range(path: Path, inputs: RawInputs, channels: int) -> tuple[Sequence[float], Sequence[float]]:
    """The data set's values of black and of white, for all channels or for each."""
    if inputs.pixels:
        return inputs.pixels[:1], inputs.pixels[1:]
    low, high = min(inputs.low, default=0.0), max(inputs.high, default=255.0)
    if inputs.dtype == "uint8":
        return ([0.0], [255.0]) if low < 0 or high >= BRIGHT else ([0.0], [high])
    if not inputs.high:
        raise DataError(
            f"{path}: which values are black and white in this data set is not known. Type for example --pixels 0,1, "
            "or --raw if the picture's numbers are the data set's own."
        )
    # a usual range, if its white side is reached more than half; so no dark data set becomes a brighter one
    for black, white in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        if black <= low and (black == 0 or low < black / 2) and white / 2 < high <= white:
            return [black], [white]
    each = len(inputs.high) == channels
    return (inputs.low, inputs.high) if each else ([low], [high])


def _minus(high: Sequence[float], low: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(high, low, strict=True)]


def _is_whole(dtype: str) -> bool:
    return dtype.startswith(("int", "uint", "bool"))
