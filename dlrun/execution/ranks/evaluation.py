"""An evaluation shared out among processes: each computes some of the chunks, and all get the totals of all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, zip_longest
from typing import Any

import torch
from torch import Tensor

from dlrun.engine.forward.totals import Total
from dlrun.execution.ranks.world import World
from dlrun.nests.nest import map_nest


class Shares:
    """The chunks that this process computes, by turns with the others."""

    def __init__(self, world: World, device: torch.device) -> None:
        self._world, self.device = world, device

    def takes(self, chunk: int) -> bool:
        """Is this chunk this process's?"""
        return chunk % self._world.size == self._world.rank

    def exchange(self, found: Iterable[Mapping[str, Total]]) -> Iterator[Mapping[str, Total]]:
        """Yield the totals of all chunks in their order, as one process has them."""
        mine = [{name: tuple(_send(part) for part in total) for name, total in chunk.items()} for chunk in found]
        for chunk in chain.from_iterable(zip_longest(*self._world.gather(mine))):
            if chunk is not None:
                yield {name: tuple(self._receive(part) for part in total) for name, total in chunk.items()}

    def _receive(self, part: Any) -> Any:
        return map_nest(lambda t: t.to(self.device) if isinstance(t, Tensor) else t, part)


def _send(part: Any) -> Any:
    return map_nest(lambda t: t.cpu() if isinstance(t, Tensor) else t, part)
