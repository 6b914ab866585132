"""The training losses of several processes, as those of one."""

from __future__ import annotations

import torch

from dlrun.engine.meters import LossMeter
from dlrun.engine.state import State
from dlrun.execution.ranks.world import World


class RankLossMeter(LossMeter):
    """Reads the losses of whole batches: Σ w·v / Σ w over the processes' parts."""

    def __init__(self, state: State, world: World) -> None:
        super().__init__(state)
        self._world = world

    def keep(self) -> None:
        if not self._losses:
            return
        losses = torch.stack(self._losses)
        weights = torch.stack([torch.as_tensor(count, device=losses.device) for count in self._counts]).to(losses)
        # a part without any sample has no mean
        sums = torch.stack([(losses * weights).where(weights > 0, 0.0), weights]).double()
        total, weight = self._world.sum(sums)
        self._state.add((total / weight).tolist(), weight.tolist())
        self._losses, self._counts = [], []
