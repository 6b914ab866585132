"""The tensors of a data set's files, decoded once and then mapped from the cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from dlrun.datasets.files import files
from dlrun.datasets.files.locate import locate
from dlrun.datasets.files.sources import Source

Decode = Callable[[dict[str, bytes]], dict[str, Tensor]]
"""Unpacked contents by file name → tensors by name."""


def decode_files(source: Source, decode: Decode, *, path: str | None = None) -> tuple[dict[str, Tensor], str]:
    """Decode a data set's files; returns the tensors and the hash of the files' contents.

    Raises `DataError` if files are missing, truncated or altered.
    """
    located = locate(source, path)
    content = hashlib.sha256(" ".join(file.sha256 for file in source.files).encode()).hexdigest()
    cached = files.cache_root() / "decoded" / f"{source.name}-{content[:32]}.pt"
    if all(files.is_known(where, file) for file, where in located.items()):
        # a cached file that cannot be loaded is written again
        with suppress(OSError, RuntimeError, ValueError, EOFError):
            return torch.load(cached, weights_only=True, mmap=True), content
    tensors = decode({file.name: files.read(where, file) for file, where in located.items()})
    with suppress(OSError):
        _save(tensors, cached)
    return tensors, content


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        torch.save(tensors, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
