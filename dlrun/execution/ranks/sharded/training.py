"""A training whose weights, averages and optimizer state are cut among processes.

The run's own objective is whole before the first step and after the last. In between it is filled with the gathered
weights for validations and checkpoints, and emptied by the next step; so what is evaluated, saved and resumed is as in
one process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from dlrun.engine.ema import Average
from dlrun.engine.loop import Training
from dlrun.engine.objective import Objective
from dlrun.engine.parameters.kinds import norm_statistics
from dlrun.engine.protocols import Rate, Stepper
from dlrun.engine.state import State
from dlrun.execution.ranks.sharded.gradient import Sharded, norms, weights_of
from dlrun.execution.ranks.sharded.pieces import Pieces, on_host
from dlrun.execution.ranks.world import World
from dlrun.optimizers.descent import Descent
from dlrun.storage.checkpoint import BestWeights, Checkpoint
from dlrun.types import Batch, Update


class _Average(Average):
    """An average of pieces; the whole objective is filled with it where it is evaluated."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        yield


@dataclass
class ShardedTraining(Training):
    """A training in one of the processes of `world`; see `Sharded` for the others."""

    world: World | None = None
    blocks: Sequence[str] = ()
    unused: bool = False
    _sharded: Sharded | None = field(default=None, init=False, repr=False)
    _whole: _Whole | None = field(default=None, init=False, repr=False)
    _whole_average: Average | None = field(default=None, init=False, repr=False)

    @property
    def _pieces(self) -> Pieces:
        assert self.world is not None
        return Pieces(self.world)

    def stepper(self) -> Stepper:
        if self._sharded is None:
            self._cut()
        return super().stepper()

    def _cut(self) -> None:
        """Keep pieces alone of what each process has whole."""
        assert self.world is not None and isinstance(self.optimizer, Descent)
        state = self._pieces.cut(self.optimizer.state_dict())
        self._sharded = sharded = Sharded(self.objective, self.blocks, ranks=self.world.size, unused=self.unused)
        self.optimizer.init(sharded.objective)
        self.optimizer.load_state_dict(state)
        self.optimizer.across, self.optimizer.norms = sharded, norms
        if average := self.average:
            statistics = norm_statistics(sharded.objective.model)
            own = _Average(sharded.objective.params, average.decay, statistics)
            count = len(sharded.objective.params)
            own.weights = [*self._pieces.cut(average.weights[:count]), *average.weights[count:]]
            average.weights = []
            self._whole_average, self.average = average, own
        self._whole = _Whole(self.objective)
        self._whole.empty()

    def step(self, batch: Batch, rate: Rate) -> Update:
        assert self._sharded is not None and self._whole is not None
        self._whole.empty()
        return self.optimizer.step(self._sharded.objective, batch, rate)  # type: ignore[arg-type]

    def _fill(self, *, averaged: bool = False) -> None:
        """Gather the weights, or their average, into the whole objective."""
        assert self._sharded is not None and self._whole is not None
        averaged = averaged and self.average is not None
        if self._whole.content == (wanted := "average" if averaged else "weights"):
            return
        for buffer, own in zip(self.objective.buffers(), self._sharded.buffers(), strict=True):
            buffer.copy_(own)
        pieces = self._sharded.pieces
        if averaged and self.average:
            params = self._sharded.objective.params
            means = dict(zip(map(id, params), self.average.weights, strict=False))
            pieces = [means.get(id(p), p) for p in pieces]
            statistics = self.average.weights[len(params) :]
            for buffer, mean in zip(norm_statistics(self.objective.model), statistics, strict=True):
                buffer.copy_(mean)
        self._whole.fill(self._pieces.join(pieces), wanted)

    def validate(self, state: State) -> dict[str, float]:
        self._fill(averaged=True)
        return super().validate(state)

    def weights(self, step: int, metrics: dict[str, float]) -> BestWeights:
        assert self.world is not None
        if not self.world.first:
            return BestWeights(step, metrics, {}, {})
        own = self.own.state_dict() if self.own else {}
        return BestWeights(step, metrics, on_host(self.objective.model.state_dict()), on_host(own))

    def checkpoint(self, state: State) -> Checkpoint:
        if self._sharded is None or self.world is None:
            return super().checkpoint(state)
        self._fill()
        optimizer = self._pieces.collect(self.optimizer.state_dict())
        if self.own and self.own.optimizer and self.world.first:
            self.own.optimizer.look(optimizer)
        average = None
        if self.average:
            count = len(self._sharded.objective.params)
            weights = self.average.weights
            average = [*self._pieces.collect(weights[:count]), *on_host(weights[count:])]
        if not self.world.first:
            return Checkpoint({}, {}, None, state.to_dict())
        own = self.own.state_dict() if self.own else {}
        return Checkpoint(on_host(self.objective.model.state_dict()), optimizer, average, state.to_dict(), own)

    def make_whole(self) -> None:
        if self._sharded is None:
            return
        self._fill()
        if (average := self.average) and (whole := self._whole_average):
            count = len(self._sharded.objective.params)
            whole.weights = [*self._pieces.join(average.weights[:count]), *average.weights[count:]]
            self.average = whole


def shard(training: Training, world: World, blocks: Sequence[str], *, unused: bool) -> ShardedTraining:
    """The training with pieces of the weights in each of the processes; for the others see `Sharded`."""
    parts: dict[str, Any] = {each.name: getattr(training, each.name) for each in fields(training)}
    return ShardedTraining(**parts, world=world, blocks=blocks, unused=unused)


class _Whole:
    """The weights of an objective, there or not."""

    def __init__(self, objective: Objective) -> None:
        self._weights = weights_of(objective)
        self._forms = [(p.shape, p.stride()) for p in self._weights]
        self.content = "weights"
        """Which weights they are now; empty for none."""

    def empty(self) -> None:
        if self.content:
            for p in self._weights:
                p.data = p.data.new_empty(0)
            self.content = ""

    def fill(self, tensors: Sequence[Tensor], content: str) -> None:
        for p, (shape, strides), whole in zip(self._weights, self._forms, tensors, strict=True):
            p.data = torch.empty_strided(shape, strides, dtype=whole.dtype, device=whole.device).copy_(whole)
        self.content = content
