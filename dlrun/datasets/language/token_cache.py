"""Tokens and vocabularies, made once and kept in the cache.

A text is encoded in portions, written as they come, and its tokens are mapped from the file: it may be larger than
memory. A file gets its name when it is complete. One process encodes, others wait for it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch

from dlrun.datasets.language.corpus import Passage
from dlrun.datasets.language.encoding import Tokens, encode, smallest_dtype
from dlrun.storage.files import cache
from dlrun.storage.files.cache import path_for, replacing
from dlrun.storage.files.locks import locked
from dlrun.terminal import output
from dlrun.terminal.format import amount
from dlrun.tokenizers import by_name
from dlrun.tokenizers.description import cache_key
from dlrun.types import Tokenizer

SHORT = 1 << 16
"""Texts of fewer characters are encoded each time and not cached."""

_LONG = 1 << 22  # characters from which on training a tokenizer is announced

T = TypeVar("T")


def tokens_of(passage: Passage, tokenizer: Tokenizer, *, most: int | None = None) -> Tokens:
    """The tokens of a passage, at most `most`, cached."""
    if len(passage) >= SHORT:
        path = path_for("tokens", "bin", passage.key, cache_key(tokenizer), str(most))
        with suppress(OSError):  # without a writable cache it costs time and memory, no more
            return _get_or_make(path, lambda: _map(path, tokenizer), lambda: _save(path, passage, tokenizer, most))
    portions = list(encode(passage, tokenizer, most=most))
    return Tokens(torch.cat([values for values, _ in portions]), _sum(size for _, size in portions))


def tokenizer_of(
    kind: str,
    train: Passage,
    validation: Passage | None = None,
    test: Passage | None = None,
    *,
    vocabulary_size: int | None = None,
) -> Tokenizer:
    """The tokenizer `kind` of a training split, cached.

    An alphabet is that of training and validation, as `by_name.fit` says. Raises `ConfigError` as `by_name.check` does.
    """
    by_name.check(kind, vocabulary_size)
    if kind != "character":
        validation = test = None

    def fit() -> Tokenizer:
        if kind == "bpe" and len(train) > _LONG:
            output.say(f"Training the tokenizer on {amount(len(train))} characters, once")
        further = (passage.pieces() if passage else () for passage in (validation, test))
        return by_name.fit(kind, train.pieces(), *further, vocabulary_size=vocabulary_size)

    # bytes have a fixed vocabulary
    if kind != "byte" and len(train) >= SHORT:
        keys = [kind, str(vocabulary_size), *(passage.key for passage in (train, validation) if passage)]
        # not as before 0.2, when an alphabet included the characters of the test
        keys += [f"unknown of {test.key}"] if test else []
        path = path_for("tokenizers", "json", *keys)
        with suppress(OSError):
            return _get_or_make(
                path,
                lambda: by_name.load(cache.load(path)),
                lambda: cache.save(path, fit().content()),
            )
    return fit()


def _get_or_make(path: Path, read: Callable[[], T], make: Callable[[], object]) -> T:
    """Read a cached file; one process makes it if needed."""
    with suppress(OSError, ValueError, KeyError):
        return read()
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):
        # again: another process may have made it while this one waited
        with suppress(OSError, ValueError, KeyError):
            return read()
        make()
    return read()


def _save(path: Path, passage: Passage, tokenizer: Tokenizer, most: int | None) -> None:
    count, sizes, checksum = 0, [], 0
    # the description last, and none beside other tokens: it says that the file of tokens is complete
    path.with_suffix(".json").unlink(missing_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        for values, size in encode(passage, tokenizer, most=most):
            portion = values.numpy().data
            file.write(portion)
            checksum = zlib.crc32(portion, checksum)
            count += len(values)
            sizes.append(size)
    cache.save(path.with_suffix(".json"), {"tokens": count, "bytes": _sum(sizes), "crc32": checksum})


def _map(path: Path, tokenizer: Tokenizer) -> Tokens:
    """Map tokens from a file.

    Raises `OSError`, `ValueError` or `KeyError` if it is missing or damaged.
    """
    description = cache.load(path.with_suffix(".json"))
    dtype, count = smallest_dtype(tokenizer.size), description["tokens"]
    if path.stat().st_size != count * dtype.itemsize:
        raise ValueError(f"{path} is incomplete")
    if cache.checksum_of(path) != description["crc32"]:
        raise ValueError(f"{path} is damaged")
    # not shared: writing to the tensor leaves the file as it is
    values = torch.from_file(str(path), shared=False, size=count, dtype=dtype) if count else torch.zeros(0, dtype=dtype)
    return Tokens(values, description["bytes"])


def _sum(sizes: Iterable[int | None]) -> int:
    """The sum of sizes, or 0 if one is unknown."""
    total = 0
    for size in sizes:
        if size is None:
            return 0
        total += size
    return total
