"""The tensors of a data set's files, decoded once and then mapped from the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from dlrun.datasets.files import files
from dlrun.datasets.files.locate import locate
from dlrun.datasets.files.sources import Source
from dlrun.errors import DamagedFile
from dlrun.storage.checkpoint import check_sums
from dlrun.storage.files.cache import cache_root, replacing

Decode = Callable[[dict[str, bytes]], dict[str, Tensor]]
"""Unpacked contents by file name → tensors by name."""


def decode_files(source: Source, decode: Decode, *, path: str | None = None) -> tuple[dict[str, Tensor], str]:
    """Decode a data set's files: (tensors, hash of the contents).

    Raises `DataError` if files are missing, truncated or altered.
    """
    located = locate(source, path)
    # of the checksums, which stand for contents that need not be read
    content = hashlib.sha256(" ".join(file.sha256 for file in source.files).encode()).hexdigest()
    cached = cache_root() / "decoded" / f"{source.name}-{content[:32]}.pt"

    def make() -> dict[str, Tensor]:
        return decode({file.name: files.read(where, file) for file, where in located.items()})

    known = all(files.is_known(where, file) for file, where in located.items())
    return cached_tensors(cached, make, known=known), content


def cached_tensors(cached: Path, make: Callable[[], dict[str, Tensor]], *, known: bool = True) -> dict[str, Tensor]:
    """The tensors of a cached file, mapped.

    They are made and written if it is missing or damaged, or not `known` to be of the files as they are.
    """
    if known:
        # a cached file that is damaged is written again
        with suppress(OSError, RuntimeError, ValueError, EOFError, DamagedFile):
            check_sums(cached)
            # mapped: the processes of a sweep share one copy in memory
            found: dict[str, Tensor] = torch.load(cached, weights_only=True, mmap=True)
            return found
    tensors = make()
    # without a writable cache the files are decoded each time
    with suppress(OSError), replacing(cached) as temporary:
        torch.save(tensors, temporary)
    return tensors
