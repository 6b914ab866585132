"""A text as samples: windows of its tokens, or a few long rows.

A sample is a window of `context` tokens; each token predicts the next. To evaluate, windows lie `stride` apart, so that
every token but the text's first is predicted exactly once, for any batch size. To train, each window is shifted by a
random number of tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import torch
from torch import Tensor

from dlrun.errors import ConfigError, DataError
from dlrun.types import IGNORE_INDEX, Batch

WIDENED = 64 << 20
"""Texts up to this many bytes as int64 are held as int64: no conversion at each step."""

MOVED = 1 << 30
"""Texts of more bytes stay where they are, such as in a mapped file; their batches are copied to the device."""

COUNTED = 1 << 12
"""Windows whose bytes are counted at once."""

# on a GPU torch indexes tensors of these types; a text of another becomes int32
_INDEXED = (torch.uint8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of a text's tokens [N].

    The tokens are of any integer type, in memory or in a mapped file. Window k begins at token k · `stride`. With a
    `stride` below `context` windows overlap, and each but the first predicts only its last `stride` tokens, from at
    least context - stride before them. `bytes` is the length in UTF-8 of the text after the first token, 0 if it is
    not known; `token_bytes` [V] has that of each token, where it does not depend on the tokens beside. Raises
    `ConfigError` for lengths that make no windows, `DataError` for a text of fewer than 2 tokens.

    >>> windows = Windows(torch.arange(6), context=3, stride=3)
    >>> windows.gather(torch.arange(len(windows))).y.tolist()
    [[1, 2, 3], [4, 5, -100]]
    """

    tokens: Tensor
    context: int
    stride: int
    bytes: int = 0
    token_bytes: Tensor | None = None

    def __post_init__(self) -> None:
        if self.context < 1 or not 1 <= self.stride <= self.context:
            raise ConfigError(
                f"dataset.context={self.context} dataset.stride={self.stride}: expected a context of at least 1 "
                f"token, and a stride of 1 to as many. Leave dataset.stride out for separate windows."
            )
        if self.tokens.ndim != 1 or len(self.tokens) < 2 or self.tokens.is_floating_point():
            raise DataError(
                f"A text of {self.tokens.dtype} {list(self.tokens.shape)} tokens; expected at least 2 whole "
                f"numbers, [N]: the first is not predicted."
            )

    def __len__(self) -> int:
        return 1 + ceil(max(0, self.predicted - self.context) / self.stride)

    @property
    def predicted(self) -> int:
        """The number of predicted tokens: all but the first."""
        return len(self.tokens) - 1

    @property
    def bytes_per_token(self) -> float | None:
        """The mean bytes of a predicted token, or None."""
        return self.bytes / self.predicted if self.bytes else None

    def bytes_per_token_of(self, index: Tensor) -> float | None:
        """The mean bytes of the tokens that the windows at `index` predict, or None.

        Without `token_bytes` that of the whole text.
        """
        targets = (self.gather(some).y for some in torch.split(index, COUNTED))
        return mean_bytes(targets, self.token_bytes, otherwise=self.bytes_per_token)

    @property
    def device(self) -> torch.device:
        """The device of the tokens and of gathered samples."""
        return self.tokens.device

    def gather(self, index: Tensor) -> Batch:
        """The windows at `index` (int64 [B]): x and y [B, T].

        `y` are the next tokens, `IGNORE_INDEX` where another window predicts, and past the end of the text, where `x`
        is 0.
        """
        index = index.to(self.device)
        place = torch.arange(self.context, device=self.device)
        x, y = next_token_pairs(self.tokens, index[:, None] * self.stride + place)
        if self.stride < self.context:
            # all but the first window leave the tokens that the one before predicts
            y.masked_fill_((index > 0)[:, None] & (place < self.context - self.stride), IGNORE_INDEX)
        return Batch(x, y)

    def starts(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """The random beginnings of the windows at `index`, int64 [B].

        Each is shifted by 0 … stride - 1 tokens. No window is shifted past the end of the text.
        """
        shift = torch.randint(self.stride, index.shape, generator=generator, device=generator.device)
        # clamped: the last window ends with the text
        return (index * self.stride + shift.to(index.device)).clamp_(max=max(0, self.predicted - self.context))

    def at(self, starts: Tensor) -> Batch:
        """The windows from `starts` (int64 [B]) on.

        `starts` lie on the tokens' device. All of the windows' tokens are predicted. All are full, except the one
        window of a text shorter than a window, which is padded.
        """
        if self.predicted < self.context:  # there is no full window to view
            return self.gather(starts)
        x, y = self._rows
        return Batch(x.index_select(0, starts).long(), y.index_select(0, starts).long())

    def draw(self, index: Tensor, generator: torch.Generator) -> Batch:
        """The windows at `index`, shifted at random.

        All of their tokens are predicted.
        """
        return self.at(self.starts(index, generator).to(self.device))

    def to(self, device: torch.device) -> Windows:
        """The split with its tokens on `device`.

        More than `MOVED` bytes stay where they are.
        """
        tokens = self.tokens
        if 8 * len(tokens) <= WIDENED or (device.type != "cpu" and tokens.dtype not in _INDEXED):
            tokens = tokens.long() if 8 * len(tokens) <= WIDENED else tokens.int()
        fits = tokens.numel() * tokens.element_size() <= MOVED
        return replace(self, tokens=tokens.to(device) if fits else self.tokens)

    def take_first(self, n: int) -> Windows:
        """The first `n` windows.

        Without `token_bytes` their bytes are in proportion to their tokens.
        """
        if n >= len(self):
            return self
        tokens = self.tokens[: (n - 1) * self.stride + self.context + 1]
        targets = torch.split(tokens[1:], COUNTED * self.context)
        each = mean_bytes(targets, self.token_bytes, otherwise=self.bytes_per_token)
        return replace(self, tokens=tokens, bytes=round((each or 0) * (len(tokens) - 1)))

    @cached_property
    def _rows(self) -> tuple[Tensor, Tensor]:
        # views with row i from token i on: a batch is one index_select of each, without arithmetic
        return self.tokens[:-1].unfold(0, self.context, 1), self.tokens[1:].unfold(0, self.context, 1)


@dataclass(frozen=True, eq=False)
class Streams:
    """A text evaluated along `count` rows.

    It is for models that carry a memory from left to right. The rows are the text cut into equal lengths. The first
    input of a row is the last token of the row before, so that every token but the text's first is predicted exactly
    once. A row begins without a memory. In training it is its `windows`. With `portions` only the first windows of
    each row are evaluated, that many.

    >>> text = Streams(Windows(torch.arange(8), context=2, stride=2), count=2)
    >>> [(fresh, batch.y.tolist()) for fresh, batch in text.walk(rows=2)]
    [(True, [[1, 2], [5, 6]]), (False, [[3, 4], [7, -100]])]
    """

    windows: Windows
    count: int
    portions: int | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"dataset.streams={self.count}; expected at least 1, or null for separate windows.")

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def predicted(self) -> int:
        """The number of predicted tokens: all but the first."""
        return self.windows.predicted

    @property
    def bytes_per_token(self) -> float | None:
        """The mean bytes of a predicted token, or None."""
        whole = self.windows.bytes_per_token
        if self.portions is None or self.windows.token_bytes is None:
            return whole
        return mean_bytes((batch.y for _, batch in self.walk(self.count)), self.windows.token_bytes, otherwise=whole)

    @property
    def device(self) -> torch.device:
        """The device of the tokens."""
        return self.windows.device

    def gather(self, index: Tensor) -> Batch:
        """As of `Windows`."""
        return self.windows.gather(index)

    def starts(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """As of `Windows`."""
        return self.windows.starts(index, generator)

    def at(self, starts: Tensor) -> Batch:
        """As of `Windows`."""
        return self.windows.at(starts)

    def draw(self, index: Tensor, generator: torch.Generator) -> Batch:
        """As of `Windows`."""
        return self.windows.draw(index, generator)

    def to(self, device: torch.device) -> Streams:
        """The split with its tokens on `device`.

        More than `MOVED` bytes stay where they are.
        """
        return replace(self, windows=self.windows.to(device))

    def take_first(self, n: int) -> Streams:
        """The text of the first `n` windows, in as many rows."""
        return replace(self, windows=self.windows.take_first(n))

    def take_spaced(self, n: int) -> Streams:
        """The beginnings of the rows, about `n` windows.

        Each row has at least one.
        """
        return replace(self, portions=max(1, n // self.count))

    def walk(self, rows: int) -> Iterator[tuple[bool, Batch]]:
        """Yield (fresh, batch) along the text, `rows` at a time.

        The memory goes on from batch to batch; with a `fresh` one other rows begin. Past the end of the text `x` is 0
        and `y` is `IGNORE_INDEX`. The predictions do not depend on `rows`.
        """
        tokens, step = self.windows.tokens, self.windows.context
        length = ceil(self.predicted / self.count)
        reach = length if self.portions is None else min(length, self.portions * step)
        # fewer than `count` rows if the last ones would begin past the end
        begins = torch.arange(0, self.predicted, length, device=self.device)
        for group in torch.split(begins, rows):
            for place in range(0, reach, step):
                along = torch.arange(place, min(place + step, reach), device=self.device)
                yield place == 0, Batch(*next_token_pairs(tokens, group[:, None] + along))


def mean_bytes(targets: Iterable[Tensor], sizes: Tensor | None, *, otherwise: float | None) -> float | None:
    """The mean bytes of the targets that count, by the sizes of all tokens.

    >>> mean_bytes([torch.tensor([0, 2, IGNORE_INDEX])], torch.tensor([1, 2, 4]), otherwise=3.0)
    2.5
    """
    if sizes is None or otherwise is None:
        return otherwise
    total = count = 0
    for some in targets:
        known = some[some != IGNORE_INDEX].to(sizes.device).long()
        total, count = total + int(sizes[known].sum()), count + len(known)
    return total / count if count else otherwise


def next_token_pairs(tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens at `positions` and the next ones, int64.

    Past the end they are 0 and `IGNORE_INDEX`.

    >>> next_token_pairs(torch.tensor([5, 6, 7]), torch.tensor([0, 1, 2]))
    (tensor([5, 6, 0]), tensor([   6,    7, -100]))
    """
    last = len(tokens) - 1
    # out-of-range places read something and are masked: no branch on a device
    inside = positions.clamp(max=last - 1)
    known = positions < last
    x, y = tokens[inside].long(), tokens[inside + 1].long()
    return torch.where(known, x, 0), torch.where(known, y, IGNORE_INDEX)
