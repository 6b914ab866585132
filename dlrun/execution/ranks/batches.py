"""The part of each batch that one of several processes takes."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dlrun.engine.batches import Batches
from dlrun.randomness import AUGMENTATION, RANK, key
from dlrun.types import Batch, Samples


class StandIn(Batch):
    """A sample in place of none: it counts for nothing.

    The last batch of an epoch may have fewer samples than there are processes, and each has to take part in the sum.
    """


def part_of(size: int, rank: int, ranks: int) -> slice:
    """The part of a batch that a process takes: sizes are equal to within one sample, the larger ones first.

    >>> [part_of(8, rank, 3) for rank in range(3)]
    [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
    """
    whole, more = divmod(size, ranks)
    begin = rank * whole + min(rank, more)
    return slice(begin, begin + whole + (rank < more))


@dataclass(frozen=True)
class RankBatches(Batches):
    """The same batches as one process has, cut among `ranks`.

    `size` and `seen` are those of the whole batches.
    """

    rank: int = 0
    ranks: int = 1

    def start(self, step: int) -> Generator[Batch, None, None]:
        batches = super().start(step)
        if not self._lacks_last:
            return batches
        return self._mark(batches, step)

    def indices(self, epoch: int) -> tuple[Tensor, ...]:
        return tuple(self._cut_one(batch) for batch in super().indices(epoch))

    @property
    def _taken(self) -> int:
        part = part_of(min(self.size, len(self.split)), self.rank, self.ranks)
        return max(1, len(range(part.start, part.stop)))

    def _mine(self, places: Tensor) -> Tensor:
        cut = [self._cut_one(batch) for batch in torch.split(places, self.size)[: self.per_epoch]]
        return torch.cat(cut)

    def _cut_one(self, batch: Tensor) -> Tensor:
        part = batch[part_of(len(batch), self.rank, self.ranks)]
        return part if len(part) else batch[:1]

    @cached_property
    def _lacks_last(self) -> bool:
        """Has this process no sample of the last batch of an epoch?"""
        part = part_of(self.last, self.rank, self.ranks)
        return not range(part.start, part.stop)

    def _mark(self, batches: Generator[Batch, None, None], step: int) -> Generator[Batch, None, None]:
        try:
            for batch in batches:
                step += 1
                yield batch if step % self.per_epoch else StandIn(*batch, batch.weight, batch.mask)
        finally:
            batches.close()

    def vary(self, batch: Batch, draw: torch.Generator, step: int, epoch: int, index: Tensor | None) -> Batch:
        """The part of a step's batch, varied.

        An augmentation with a method `vary_part` draws for the whole batch, as one process does; any other draws by the
        step and the rank.
        """
        vary_part = getattr(self.augment, "vary_part", None)
        if vary_part is None or index is None:
            return super().vary(batch, draw, step, epoch, index)
        whole = self.last if (step + 1) % self.per_epoch == 0 else min(self.size, len(self.split))
        draw.manual_seed(key(self.seed, AUGMENTATION, step))
        samples = Samples(index.to(self.device), epoch, self.seed)
        part = part_of(whole, self.rank, self.ranks)
        # a stand-in is the first sample
        x = vary_part(batch.x, draw, samples, whole=whole, start=part.start if part.start < part.stop else 0)
        return Batch(x, batch.y, batch.weight, batch.mask)

    def _draw_key(self, step: int) -> int:
        # for another part of the batch other draws
        return super()._draw_key(step) if self.rank == 0 else key(self.seed, RANK, self.rank) ^ super()._draw_key(step)
