"""The pixels of pictures, decoded once: to a cached file, or to see that each can be decoded."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

from dlrun.datasets.files.decode import cached_tensors
from dlrun.datasets.files.framing import Framing, Transparent, deep_pixels, frame, is_deep, open_picture
from dlrun.datasets.images.catalogue import Catalogue
from dlrun.datasets.images.heads import Heads, each, problems_message, reason_of
from dlrun.datasets.tensors.sample_keys import sample_keys
from dlrun.errors import DataError
from dlrun.storage.files import cache
from dlrun.terminal import output
from dlrun.terminal.format import counted

BYTES = 5
"""Of a value in memory: as the cache has it, uint8, and as the splits have it, float32."""

SHARE = 0.5
"""Of the free memory that pictures may take."""

DARK = 65535 // 4
"""Pictures of 16 bits that stay below have few of the 256 values left."""


@dataclass(frozen=True)
class Decoded:
    """Of N pictures, a key, and the sums of their pixels and of their squares for each channel, int64 [N, C].

    `pixels` are uint8 [N, C, H, W], or None where they are read again and again.
    """

    keys: Tensor
    sums: Tensor
    squares: Tensor
    brightest: Tensor
    pixels: Tensor | None = None

    def mean_and_deviation(self, places: Tensor, area: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of some pictures' channels; the deviation is that of the population, 1 for a constant channel.

        Sums of whole numbers: the same to the last bit whether the pictures lie in memory or not.
        """
        n = len(places) * area
        mean = self.sums[places].sum(0).double() / n
        deviation = (self.squares[places].sum(0).double() / n - mean.square()).clamp(min=0).sqrt()
        return tuple(mean.tolist()), tuple(torch.where(deviation > 0, deviation, 1.0).tolist())


def fits_memory(count: int, framing: Framing) -> bool:
    """Whether so many pictures are to lie in memory."""
    wanted = BYTES * count * framing.channels * framing.height * framing.width
    return wanted <= int(SHARE * psutil.virtual_memory().available)


def decode(catalogue: Catalogue, heads: Heads, framing: Framing, *, keep: bool) -> Decoded:
    """Decode all pictures, and keep their pixels if asked to; cached by the files' contents.

    Raises `DataError` that names all pictures that are damaged, and all transparent ones without a background.
    """
    content = hashlib.sha256(heads.digests.contiguous().numpy().tobytes()).hexdigest()
    where = cache.path_for("pictures", "pt", "pixels 1", content, repr(framing), str(keep))
    found = Decoded(**cached_tensors(where, lambda: _decode_all(catalogue, framing, keep=keep)))
    _report_dark(catalogue, found.brightest)
    return found


def read_picture(catalogue: Catalogue, place: int, framing: Framing) -> Tensor:
    """The pixels of one picture, uint8 [C, H, W]."""
    with catalogue.paths[place].open("rb") as file:
        return frame(open_picture(file), framing)


def _decode_all(catalogue: Catalogue, framing: Framing, *, keep: bool) -> dict[str, Tensor]:
    count = len(catalogue.paths)
    shape = (framing.channels, framing.height, framing.width)
    pixels = torch.empty((count, *shape), dtype=torch.uint8) if keep else None

    def work(place: int) -> tuple[int, Tensor, Tensor, int] | Exception:
        try:
            found, brightest = _decode_one(catalogue, place, framing)
        except Exception as error:
            return error
        if pixels is not None:
            pixels[place] = found
        wide = found.flatten(1).long()
        return int(sample_keys(found[None])), wide.sum(1), wide.square().sum(1), brightest

    results = [*each(count, work, "Decoding pictures")]
    _refuse(catalogue, {place: one for place, one in enumerate(results) if isinstance(one, Exception)})
    rows = [row for row in results if not isinstance(row, Exception)]
    tensors = {
        "keys": torch.tensor([key for key, _, _, _ in rows]),
        "sums": torch.stack([sums for _, sums, _, _ in rows]),
        "squares": torch.stack([squares for _, _, squares, _ in rows]),
        "brightest": torch.tensor([brightest for _, _, _, brightest in rows]),
    }
    return tensors if pixels is None else {**tensors, "pixels": pixels}


def _decode_one(catalogue: Catalogue, place: int, framing: Framing) -> tuple[Tensor, int]:
    """The pixels, and the brightest of 16 bits: -1 for other pictures."""
    image = open_picture(io.BytesIO(catalogue.paths[place].read_bytes()))
    brightest = int(deep_pixels(image).max()) if is_deep(image) else -1
    return frame(image, framing), brightest


def _refuse(catalogue: Catalogue, errors: dict[int, Exception]) -> None:
    if not errors:
        return
    advice = ["Mend them, or take them out."] if any(not isinstance(e, Transparent) for e in errors.values()) else []
    if any(isinstance(error, Transparent) for error in errors.values()):
        advice.append("Type dataset.background=white, or black, for what lies behind transparent pictures.")
    problems = {place: reason_of(error) for place, error in errors.items()}
    raise DataError(problems_message(catalogue, problems, " ".join(advice)))


def _report_dark(catalogue: Catalogue, brightest: Tensor) -> None:
    deep = brightest[brightest >= 0]
    if len(deep) and int(deep.max()) < DARK:
        output.warn(
            f"{counted(len(deep), 'picture', ',')} in {catalogue.root} have 16 bits a pixel, and the brightest has "
            f"{int(deep.max())} of 65535: read as 0 to 255 it is {round(int(deep.max()) / 257)}. If fewer bits are "
            "used, scale the files up to 65535."
        )
