"""The tokens of a text, portion by portion, and their length in bytes."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dlrun.datasets.language.corpus import Passage
from dlrun.errors import DataError
from dlrun.terminal import output
from dlrun.terminal.format import amount
from dlrun.tokenizers.portions import PortionTokenizer
from dlrun.types import Tokenizer

_LONG = 1 << 22  # characters from which on progress is shown


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens [N] of a text, of any integer type.

    `bytes` is the length in UTF-8 of all but the first, 0 if it is not known.
    """

    values: Tensor
    bytes: int = 0


def smallest_dtype(size: int) -> torch.dtype:
    """The smallest type for `size` tokens: uint8, int16 or int32."""
    # torch cannot index by uint16
    return torch.uint8 if size <= 1 << 8 else torch.int16 if size <= 1 << 15 else torch.int32


def encode(passage: Passage, tokenizer: Tokenizer, *, most: int | None = None) -> Iterator[tuple[Tensor, int | None]]:
    """Yield (tokens, bytes) of a passage's portions.

    At most `most` tokens come. The bytes are None if they are not known. They leave out the passage's first token,
    which nothing predicts. Raises `DataError` if the text has changed since its characters were counted.
    """
    dtype, done, begun = smallest_dtype(tokenizer.size), 0, False
    for text in _portions(passage, tokenizer):
        tokens = tokenizer.encode(text)
        kept = tokens[:most]
        size = _bytes(tokenizer, text, None if len(kept) == len(tokens) else len(kept))
        # the first token of the passage is never predicted: its bytes do not count
        if not begun and size is not None:
            size -= _bytes(tokenizer, text, 1 if kept else None) or 0
        yield _tensor(kept, dtype), size
        begun, done = begun or bool(kept), done + len(text)
        if len(passage) > _LONG:
            output.live(f"  {done / len(passage):.0%} of {amount(len(passage))} characters encoded")
        if most is not None and (most := most - len(kept)) == 0:
            break
    else:  # not cut off by `most`: all characters must have come
        if done != len(passage):
            raise DataError("The text has changed while it was read: start again once nothing writes to its files.")
    if len(passage) > _LONG:
        output.live("")


def _tensor(tokens: list[int], dtype: torch.dtype) -> Tensor:
    # several times faster than torch.tensor
    values = array({torch.uint8: "B", torch.int16: "h", torch.int32: "i"}[dtype], tokens)
    return torch.frombuffer(values, dtype=dtype) if tokens else torch.zeros(0, dtype=dtype)


def _portions(passage: Passage, tokenizer: Tokenizer) -> Iterator[str]:
    if isinstance(tokenizer, PortionTokenizer):
        return tokenizer.portions(passage.pieces())
    # a tokenizer of the user's may depend on any distance: it gets the text whole
    return iter(["".join(passage.pieces())])


def _bytes(tokenizer: Tokenizer, text: str, tokens: int | None) -> int | None:
    return tokenizer.bytes_of(text, tokens) if isinstance(tokenizer, PortionTokenizer) else None
