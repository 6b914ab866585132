"""What the files of pictures say of themselves: their content's hash, size and colours."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from dlrun.datasets.files.decode import cached_tensors
from dlrun.datasets.files.framing import channels_of, open_picture, upright_size
from dlrun.datasets.images.catalogue import Catalogue
from dlrun.errors import DataError
from dlrun.storage.files import cache
from dlrun.terminal import output
from dlrun.terminal.format import counted

T = TypeVar("T")

THREADS = 8
"""That read and decode: Pillow lets go of Python's lock."""

LONG = 2000
"""Pictures from which on progress is shown."""


@dataclass(frozen=True)
class Heads:
    """Of N pictures, `digests` uint8 [N, 32], `sizes` int32 [N, 2] (height, width) and `channels` uint8 [N]."""

    digests: Tensor
    sizes: Tensor
    channels: Tensor


def read_heads(catalogue: Catalogue) -> Heads:
    """Read all files, and open them as pictures; cached for their sizes and times of modification.

    Raises `DataError` that names all that cannot be opened.
    """
    try:
        stamps = [[str(path), (stat := path.stat()).st_size, stat.st_mtime_ns] for path in catalogue.paths]
    except FileNotFoundError:
        lost = {place: "it is a link to nothing" for place, path in enumerate(catalogue.paths) if not path.exists()}
        raise DataError(problems_message(catalogue, lost, "Mend them, or take them out.")) from None
    where = cache.path_for("pictures", "pt", "heads 1", json.dumps(stamps))
    return Heads(**cached_tensors(where, lambda: _read_all(catalogue)))


def problems_message(catalogue: Catalogue, problems: Mapping[int, str], advice: str) -> str:
    """The pictures that cannot be taken, all of them, each with the reason."""
    listed = "".join(f"\n  {catalogue.name(place)}: {reason}" for place, reason in problems.items())
    return (
        f"{counted(len(problems), 'file', ',')} of {len(catalogue.paths):,} in {catalogue.root} cannot be "
        f"taken as {'a picture' if len(problems) == 1 else 'pictures'}:{listed}\n{advice}"
    )


def each(count: int, work: Callable[[int], T], doing: str) -> Iterator[T]:
    """The results of `work` for 0 … count - 1, in order, in several threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        for place, result in enumerate(pool.map(work, range(count))):
            if count >= LONG and place % 100 == 0:
                output.live(f"{doing}: {place:,} of {count:,}")
            yield result
    if count >= LONG:
        output.live("")


def reason_of(error: Exception) -> str:
    """Why a file is no picture: of a damaged one, Pillow raises whatever it stumbles over."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "it is damaged, or no picture"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _read_all(catalogue: Catalogue) -> dict[str, Tensor]:
    found = [*each(len(catalogue.paths), lambda place: _head(catalogue.paths[place]), "Reading pictures")]
    problems = {place: head for place, head in enumerate(found) if isinstance(head, str)}
    if problems:
        raise DataError(problems_message(catalogue, problems, "Mend them, or take them out."))
    heads = [head for head in found if not isinstance(head, str)]
    digests = bytearray(b"".join(digest for digest, _, _ in heads))
    return {
        "digests": torch.frombuffer(digests, dtype=torch.uint8).view(-1, 32),
        "sizes": torch.tensor([size for _, size, _ in heads], dtype=torch.int32),
        "channels": torch.tensor([channels for _, _, channels in heads], dtype=torch.uint8),
    }


def _head(path: Path) -> tuple[bytes, tuple[int, int], int] | str:
    """The digest, the size and the channels of a picture, or what is wrong with it."""
    try:
        content = path.read_bytes()
        image = open_picture(io.BytesIO(content))
        return hashlib.sha256(content).digest(), upright_size(image), channels_of(image)
    except Exception as error:
        return reason_of(error)
