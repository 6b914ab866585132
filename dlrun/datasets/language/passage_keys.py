"""Keys of a text's windows, wherever they lie: they find what two texts, or two cuts of one, share."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from contextlib import suppress

import torch
from torch import Tensor

from dlrun.datasets.language.corpus import Passage
from dlrun.datasets.tensors.sample_keys import mix, thinned
from dlrun.storage.files import cache
from dlrun.types import SampleKeys

WINDOW = 64
"""Characters of a window: longer than what two texts of one language share by chance."""

MOST = 1 << 15
"""Keys of a passage that are kept: a text of a million characters has one for each 32 of them."""

LONG = 1 << 20
"""Passages of more characters are cached: a million takes some 10 ms."""

_STEP = 1 << 16  # characters that are hashed at once: they stay in a processor's cache
_ODD = -7046029254386353131


def passage_keys(passage: Passage) -> SampleKeys:
    """Keys of the windows of `WINDOW` characters, one at each character; cached."""
    one_in = _one_in(len(passage))
    if len(passage) < LONG:
        return _keys(_numbers(passage.pieces()), one_in)
    path = cache.path_for("passages", "json", passage.key, str(WINDOW), str(one_in))
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = cache.load(path)
        return SampleKeys(_unpacked(found["keys"]), int(found["total"]), one_in)
    keys = _keys(_numbers(passage.pieces()), one_in)
    with suppress(OSError):
        packed = base64.b64encode(keys.values.numpy().tobytes()).decode()
        cache.save(path, {"keys": packed, "total": keys.total})
    return keys


def token_keys(tokens: Tensor) -> SampleKeys:
    """Keys of the windows of `WINDOW` tokens [N]."""
    return _keys(iter([tokens]), _one_in(len(tokens)))


def _one_in(length: int) -> int:
    one_in = 1
    while length > MOST * one_in:
        one_in *= 2
    return one_in


def _keys(pieces: Iterator[Tensor], one_in: int) -> SampleKeys:
    found, total = [], 0
    held = torch.zeros(0, dtype=torch.int64)
    for piece in pieces:
        for some in torch.split(piece, _STEP):
            held = torch.cat([held, some.long()])
            if len(held) >= WINDOW:
                keys = _hash(held)
                total += len(keys)
                found.append(thinned(SampleKeys(keys, len(keys)), one_in).values)
                # the next window begins in here
                held = held[len(keys) :]
    return SampleKeys(torch.cat(found) if found else held[:0], total, one_in)


def _hash(numbers: Tensor) -> Tensor:
    """A key of each window of `WINDOW` numbers."""
    # mixed first: neighbours in the alphabet must not cancel each other
    keys, width, factor = mix(numbers), 1, _ODD
    while width < WINDOW:
        # a window of two halves, at every place at once
        keys = keys[:-width] * factor + keys[width:]
        width, factor = 2 * width, _signed(factor * factor)
    return mix(keys)


def _signed(number: int) -> int:
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _numbers(pieces: Iterable[str]) -> Iterator[Tensor]:
    for piece in pieces:
        if piece:
            # lone surrogates are characters too
            yield torch.frombuffer(bytearray(piece.encode("utf-32-le", "surrogatepass")), dtype=torch.int32)


def _unpacked(text: str) -> Tensor:
    content = bytearray(base64.b64decode(text))
    return torch.frombuffer(content, dtype=torch.int64) if content else torch.zeros(0, dtype=torch.int64)
