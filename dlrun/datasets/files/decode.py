"""Tensors decoded from a data set's files, kept in the cache so that they are decoded once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from dlrun.datasets.files import files
from dlrun.datasets.files.sources import Source

Decode = Callable[[dict[str, bytes]], dict[str, Tensor]]
"""The unpacked content of each file, by its name → named tensors."""


def decode_files(source: Source, decode: Decode, *, path: str | None = None) -> tuple[dict[str, Tensor], str]:
    """Return the tensors that `decode` makes of a data set's checked files, and the hash of their content.

    Raises `DataError` if files are missing, truncated or altered.
    """
    located = files.locate(source, path)
    content = hashlib.sha256(" ".join(file.sha256 for file in source.files).encode()).hexdigest()
    cached = files.cache_root() / "decoded" / f"{source.name}-{content[:32]}.pt"
    if all(files.is_known(where, file) for file, where in located.items()):
        # a cached form that cannot be loaded is made again
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
