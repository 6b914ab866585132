"""Tokens and vocabularies, made once and kept in the cache; tokens in a file that is mapped, not read.

A text is encoded in portions that are written as they come, so it may be larger than memory. A file
gets its name when it is complete. Several processes may ask at once: one encodes, the others wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

import torch

from dlrun.datasets.files.files import cache_root
from dlrun.datasets.language.corpus import Passage
from dlrun.datasets.language.encoding import Tokens, encode, smallest_dtype
from dlrun.terminal import output
from dlrun.terminal.format import amount
from dlrun.tokenizers import by_name
from dlrun.tokenizers.description import cache_key
from dlrun.types import Tokenizer

SHORT = 1 << 16
"""Texts of fewer characters are encoded each time, and leave nothing in the cache."""

_LONG = 1 << 22

T = TypeVar("T")


def tokens_of(passage: Passage, tokenizer: Tokenizer, *, most: int | None = None) -> Tokens:
    """Return the tokens of a passage, the first `most` of them (null: all), from the cache if they are there."""
    if len(passage) >= SHORT:
        path = _path("tokens", "bin", passage.key, cache_key(tokenizer), str(most))
        with suppress(OSError):  # a cache that cannot be written costs time and memory, no more
            return _get_or_make(path, lambda: _map(path, tokenizer), lambda: _save(path, passage, tokenizer, most))
    portions = list(encode(passage, tokenizer, most=most))
    return Tokens(torch.cat([values for values, _ in portions]), _sum(size for _, size in portions))


def tokenizer_of(
    kind: str, train: Passage, others: Iterable[Passage] = (), *, vocabulary_size: int | None = None
) -> Tokenizer:
    """Return the tokenizer `kind` of a text's training part, from the cache if it is there.

    The characters of `others`, the further parts, belong to the alphabet too.
    """
    by_name.check(kind, vocabulary_size)
    others = tuple(others) if kind == "character" else ()

    def fit() -> Tokenizer:
        if kind == "bpe" and len(train) > _LONG:
            output.say(f"Training the tokenizer on {amount(len(train))} characters, once")
        further = (piece for passage in others for piece in passage.pieces())
        return by_name.fit(kind, train.pieces(), further, vocabulary_size=vocabulary_size)

    if kind != "byte" and len(train) >= SHORT:
        keys = (kind, str(vocabulary_size), *(passage.key for passage in (train, *others)))
        path = _path("tokenizers", "json", *keys)
        with suppress(OSError):
            return _get_or_make(
                path,
                lambda: by_name.load(json.loads(path.read_text(encoding="utf-8"))),
                lambda: _write(path, lambda file: file.write(json.dumps(fit().content()).encode())),
            )
    return fit()


def _path(folder: str, ending: str, *keys: str) -> Path:
    digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:32]
    return cache_root() / folder / f"{digest}.{ending}"


def _get_or_make(path: Path, read: Callable[[], T], make: Callable[[], object]) -> T:
    """Return what is read from `path`; if it is not there, or of no use, it is made first, by one process."""
    with suppress(OSError, ValueError, KeyError):
        return read()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(path):
        with suppress(OSError, ValueError, KeyError):
            return read()
        make()
    return read()


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _save(path: Path, passage: Passage, tokenizer: Tokenizer, most: int | None) -> None:
    count, sizes = 0, []

    def write(file: BinaryIO) -> None:
        nonlocal count
        for values, size in encode(passage, tokenizer, most=most):
            file.write(values.numpy().data)
            count += len(values)
            sizes.append(size)

    path.with_suffix(".json").unlink(missing_ok=True)
    _write(path, write)
    described = json.dumps({"tokens": count, "bytes": _sum(sizes)}).encode()
    _write(path.with_suffix(".json"), lambda file: file.write(described))


def _map(path: Path, tokenizer: Tokenizer) -> Tokens:
    """Return tokens from a file; raises `OSError` or `ValueError` if it is not there, or cut short."""
    described = json.loads(path.with_suffix(".json").read_text())
    kind, count = smallest_dtype(tokenizer.size), described["tokens"]
    if path.stat().st_size != count * kind.itemsize:
        raise ValueError(f"{path} is incomplete")
    values = torch.from_file(str(path), shared=False, size=count, dtype=kind) if count else torch.zeros(0, dtype=kind)
    return Tokens(values, described["bytes"])


def _sum(sizes: Iterable[int | None]) -> int:
    total = 0
    for size in sizes:
        if size is None:
            return 0
        total += size
    return total


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        with temporary.open("wb") as file:
            write(file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
