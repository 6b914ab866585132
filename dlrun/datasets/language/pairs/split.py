"""Pairs of token sequences of many lengths, padded batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from dlrun.datasets.language.encoding import smallest_dtype
from dlrun.nests.batch import Batch
from dlrun.tokenizers.pair import BEGIN, PADDING
from dlrun.types import IGNORE_INDEX

BUCKET = 50
"""Batches of an epoch's order whose samples are sorted by length."""


@dataclass(frozen=True, eq=False)
class Ragged:
    """Sequences of tokens end to end: `values` [M], with the `starts` [N] and `lengths` [N] of each."""

    values: Tensor
    starts: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], size: int) -> Ragged:
        """The same of lists of tokens below `size`."""
        lengths = torch.tensor([len(each) for each in sequences], dtype=torch.int64)
        values = torch.tensor([token for each in sequences for token in each], dtype=smallest_dtype(size))
        return cls(values, lengths.cumsum(0) - lengths, lengths)

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The sequences at `index`, padded to the longest, int64 [B, T], and which of them is none of the padding."""
        lengths = self.lengths[index]
        along = torch.arange(int(lengths.max()), device=index.device)
        inside = along < lengths[:, None]
        places = (self.starts[index][:, None] + along).clamp(max=len(self.values) - 1)
        return self.values[places].long().where(inside, PADDING), inside

    def to(self, device: torch.device) -> Ragged:
        """The same on `device`."""
        return Ragged(self.values.to(device), self.starts.to(device), self.lengths.to(device))

    def first(self, n: int) -> Ragged:
        """The first `n` sequences."""
        return replace(self, starts=self.starts[:n], lengths=self.lengths[:n])


@dataclass(frozen=True, eq=False)
class PairSplit:
    """Sources and targets, each with its end.

    A batch has the inputs `source` [B, S] and `shifted` [B, T], the targets behind `BEGIN`, and the targets [B, T], all
    padded to the longest of the batch.
    """

    source: Ragged
    target: Ragged
    bucket: int = BUCKET

    def __len__(self) -> int:
        return len(self.source.lengths)

    @cached_property
    def lengths(self) -> Tensor:
        """The tokens of each pair, by which batches are put together."""
        return (self.source.lengths + self.target.lengths).cpu()

    def gather(self, index: Tensor) -> Batch:
        """The pairs at `index`, in that order."""
        source, _ = self.source.rows(index)
        target, inside = self.target.rows(index)
        begin = target.new_full((len(target), 1), BEGIN)
        shifted = torch.cat([begin, target[:, :-1]], dim=1).where(inside, PADDING)
        return Batch({"source": source, "shifted": shifted}, target.where(inside, IGNORE_INDEX))

    def to(self, device: torch.device) -> PairSplit:
        """The split with its tokens on `device`."""
        return PairSplit(self.source.to(device), self.target.to(device), self.bucket)

    def take_first(self, n: int) -> PairSplit:
        """The first `n` pairs."""
        return PairSplit(self.source.first(n), self.target.first(n), self.bucket)
