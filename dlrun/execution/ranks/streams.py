"""The part of each batch of a stream that one of several processes takes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

from dlrun.engine.reading.streams import StreamBatches
from dlrun.execution.ranks.batches import StandIn, part_of
from dlrun.types import Batch


@dataclass
class RankStreamBatches(StreamBatches):
    """The same batches as one process has, cut among `ranks`; each reads the whole stream, and varies whole batches."""

    rank: int = 0
    ranks: int = 1

    def start(self, step: int) -> Generator[Batch, None, None]:
        with closing(super().start(step)) as batches:
            for batch in batches:
                part = part_of(batch.size, self.rank, self.ranks)
                if part.start < part.stop:
                    yield batch.rows(part)
                else:
                    first = batch.rows(slice(1))
                    yield StandIn(*first, first.weight, first.mask)
