"""A picture as bytes of one size: turned upright, opaque, grey or coloured, resized."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

if TYPE_CHECKING:  # Pillow comes with matplotlib, and only pictures need it
    from PIL.Image import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
"""Of files that are pictures."""

MOST_PIXELS = 50_000_000
"""Of a picture, unless the samples of the data set have more."""

Resize = Literal["crop", "stretch"]
Background = Literal["black", "white"]

RESIZES: tuple[str, ...] = get_args(Resize)
BACKGROUNDS: tuple[str, ...] = get_args(Background)

_KNOWN = {"1", "L", "P", "RGB", "RGBA", "LA", "PA", "RGBX", "CMYK", "YCbCr", "I", "I;16", "I;16B", "I;16L", "I;16N"}
_GREY = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N"}
_ORIENTATION = 0x0112  # a tag of EXIF


class Transparent(ValueError):
    """A transparent picture, and nothing says what lies behind it."""


@dataclass(frozen=True)
class Framing:
    """How pictures become samples uint8 [channels, height, width].

    A picture of another size is scaled. `crop` scales it to cover height and width and keeps the middle: of a square,
    its shorter side is scaled to the side. `stretch` scales both sides, whatever their ratio. Scaling averages over
    the pixels (Pillow's bilinear filter, as torchvision's `Resize` with `antialias`).
    """

    channels: int
    height: int
    width: int
    resize: str = "crop"
    background: str | None = None


def open_picture(file: Path | IO[bytes], *, most: int = MOST_PIXELS) -> Image:
    """Open a picture; its pixels are not read yet.

    Raises `ValueError` for one of more than `most` pixels, for a film, and for pixels that are neither grey nor
    colours; whatever Pillow raises for other files.
    """
    import warnings

    from PIL import Image

    with warnings.catch_warnings():
        # our own limit is said below
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(file)
    # known from the head, before anything is unpacked
    if image.width * image.height > most:
        raise ValueError(f"it has {image.width} × {image.height} pixels; expected at most {most:,}")
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise ValueError(f"it has {frames} pictures, as a film; expected one")
    if image.mode not in _KNOWN:
        raise ValueError(f"its pixels are of mode {image.mode}; expected grey or colour")
    return image


def is_turned(image: Image) -> bool:
    """Whether EXIF says that a picture is to be turned or mirrored."""
    return bool(image.getexif().get(_ORIENTATION, 1) not in (0, 1))


def upright_size(image: Image) -> tuple[int, int]:
    """The height and width of a picture, once it is turned."""
    # 5 to 8 are quarter turns
    quarter = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    return (image.width, image.height) if quarter else (image.height, image.width)


def channels_of(image: Image) -> int:
    """1 for a grey picture, 3 for a coloured one; a palette is of colours."""
    return 1 if image.mode in _GREY else 3


def turn_upright(image: Image) -> Image:
    """The picture as EXIF says that it is to be seen."""
    from PIL import ImageOps

    turned: Image = ImageOps.exif_transpose(image)
    return turned


def is_deep(image: Image) -> bool:
    """Whether a picture has 16 bits a pixel."""
    return image.mode.startswith("I")


def is_transparent(image: Image) -> bool:
    """Whether something behind a picture would be seen."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return False
    least, _ = image.convert("RGBA").getchannel("A").getextrema()
    return bool(least != 255)


def make_opaque(image: Image, background: str | None) -> Image:
    """A picture without transparency, laid on the background if it has some.

    Raises `Transparent` if it needs one.
    """
    from PIL import Image

    if is_deep(image) and "transparency" in image.info:
        raise ValueError("it has 16 bits a pixel and a transparent grey. Save it without transparency")
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    grey = image.mode == "LA"
    image = image.convert("RGBA")
    if is_transparent(image):
        if background is None:
            raise Transparent("it is transparent (it has an alpha channel): what lies behind it is not known")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image.convert("RGB").convert("L") if grey else image.convert("RGB")


def deep_pixels(image: Image) -> Any:
    """The pixels of a picture of 16 bits, as a numpy array [H, W] of 0 to 65535."""
    import numpy

    pixels = numpy.array(image).astype("int64")
    if int(pixels.min()) < 0 or int(pixels.max()) > 65535:
        raise ValueError("its pixels have more than 16 bits")
    return pixels


def frame(image: Image, framing: Framing) -> Tensor:
    """The pixels of an open picture, uint8 [channels, height, width].

    Pixels of 16 bits are divided by 257, colours become grey by their luminance (ITU-R 601). Raises `Transparent`, and
    what Pillow raises for a damaged file.
    """
    import numpy
    from PIL import Image, ImageOps

    image = make_opaque(turn_upright(image), framing.background)
    if is_deep(image):
        image = Image.fromarray(numpy.rint(deep_pixels(image) / 257).astype("uint8"))
    if image.mode == "P":
        # by way of colours: the numbers of a palette would mean something else
        image = image.convert("RGB")
    image = image.convert("L" if framing.channels == 1 else "RGB")
    size = framing.width, framing.height
    if image.size != size:
        bilinear = Image.Resampling.BILINEAR
        image = image.resize(size, bilinear) if framing.resize == "stretch" else ImageOps.fit(image, size, bilinear)
    pixels = torch.from_numpy(numpy.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.movedim(-1, 0).contiguous()
