"""Pictures, and their heads."""

from __future__ import annotations

import io
from pathlib import Path

from dlrun.datasets.files.framing import Framing, frame, open_picture
from dlrun.datasets.files.given import samples
from dlrun.datasets.files.pictures import Reading
from dlrun.datasets.images.heads import _head
from dlrun.errors import DataError
from dlrun.types import RawInputs
from tests.fuzz.reader import Reader, every

FORMATS = {"png": "PNG", "jpg": "JPEG", "bmp": "BMP", "gif": "GIF", "tiff": "TIFF", "webp": "WEBP", "ppm": "PPM"}
INPUTS = RawInputs(shape=(1, 8, 8), dtype="uint8", low=(0.0,), high=(255.0,), pixels=(0.0, 255.0))


def _drawn(form: str) -> list[bytes]:
    from PIL import Image

    found = []
    for mode in ("L", "RGB", "RGBA", "P", "I;16"):
        file = io.BytesIO()
        image = Image.frombytes("L", (8, 8), bytes(range(0, 256, 4))).convert("I" if mode == "I;16" else mode)
        try:
            image.convert(mode).save(file, FORMATS[form], exif=Image.Exif() if form == "jpg" else b"")
        except (OSError, ValueError, TypeError):
            continue
        found.append(file.getvalue())
    return found


def _predict(path: Path) -> None:
    samples.read(path, INPUTS, Reading(background="black"))


def _train(path: Path) -> None:
    head = _head(path)
    if isinstance(head, str):
        return
    try:
        frame(open_picture(path), Framing(3, 8, 8, background="white"))
    except Exception as error:
        raise DataError(str(error)) from None


READERS = tuple(Reader(form, f"x.{form}", lambda form=form: _drawn(form), every(_predict, _train)) for form in FORMATS)
