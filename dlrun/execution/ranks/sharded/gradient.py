"""The gradient of a batch of which several processes have parts, and of whose weights each keeps a piece."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from dlrun.engine.objective import Objective
from dlrun.execution.ranks.batches import StandIn
from dlrun.execution.ranks.gradient import BatchSum
from dlrun.optimizers.descent import cut, parameter_norms
from dlrun.types import Batch


class Sharded:
    """A copy of an objective of which this process keeps pieces of the weights.

    `objective` has the pieces that train as its parameters, `pieces` are those of all weights. `blocks` are gathered
    when they are called (`sharded.blocks`), the rest for a step. `unused`: not all parameters have an influence on
    the loss.
    """

    def __init__(self, whole: Objective, blocks: Sequence[str], *, ranks: int, unused: bool) -> None:
        self.objective = copy.deepcopy(whole)
        self._root = BatchSum(self.objective)
        device = next(iter(self.objective.params)).device.type
        mesh = init_device_mesh(device, (ranks,))
        for p in self._root.parameters():
            p.data = p.data.contiguous()  # a kernel in channels_last is cut as any other
        modules = dict(self._root.parts.named_modules())
        for name in blocks:
            fully_shard(modules[name], mesh=mesh)
        fully_shard(self._root, mesh=mesh)
        for module in self._root.modules():
            if isinstance(module, FSDPModule):
                # sums: `__call__` divides by their weight
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
                if unused:
                    module.set_reduce_scatter_unused_params(True, recurse=False)
        weights = [cast("DTensor", p) for p in self._root.parameters()]
        self._trained = [p for p in weights if p.requires_grad]
        with torch.no_grad():
            self.pieces = [p.to_local() for p in weights]
        self.objective.params = [t for p, t in zip(weights, self.pieces, strict=True) if p.requires_grad]

    def buffers(self) -> Iterator[Tensor]:
        return self.objective.buffers()

    def __call__(self, batch: Batch, params: Sequence[Tensor], parts: int) -> tuple[Tensor, list[Tensor], Tensor]:
        """The mean loss of this process's part, its pieces of the gradient of the whole batch, and the part's weight.

        The part is cut into `parts` further ones. Each adds to the pieces at once: a whole gradient is never kept.
        """
        for p in self._trained:
            p.grad = None
        losses, weights = [], []
        for portion in _portions(batch, parts):
            loss, weight = self._root(portion)
            if isinstance(portion, StandIn):
                loss, weight = loss * 0, weight * 0
            losses.append(loss.detach().where(weight > 0, 0.0))
            weights.append(weight)
            loss.backward()
        total = sum(weights[1:], weights[0])
        everywhere = total.double() if total.device.type != "mps" else total.clone()
        dist.all_reduce(everywhere)
        grads = [_local(p) for p in self._trained]
        torch._foreach_div_(grads, everywhere.to(grads[0].dtype))
        return sum(losses[1:], losses[0]) / total, grads, total


def _local(p: DTensor) -> Tensor:
    if p.grad is None:
        return torch.zeros_like(p.to_local(), requires_grad=False)
    return cast("DTensor", p.grad).to_local()


def _portions(batch: Batch, parts: int) -> Iterator[Batch]:
    """Exactly `parts` portions: each process has to take part in each pass, one without a sample too."""
    found = [batch] if parts == 1 else cut(batch, parts)
    first = batch.rows(slice(0, 1))
    idle = StandIn(*first, first.weight, first.mask)
    if isinstance(batch, StandIn):
        found = [idle]
    return chain(found, repeat(idle, parts - len(found)))


def norms(pieces: list[Tensor]) -> Tensor:
    """The Euclidean norm of each tensor, of which this process has a piece, [P]."""
    squares = parameter_norms(pieces).double().square()
    dist.all_reduce(squares)
    return squares.sqrt().to(pieces[0].dtype)


def weights_of(objective: Objective) -> list[nn.Parameter]:
    """All weights of an objective, each once, in the order of `Sharded.pieces`."""
    return [*dict.fromkeys(p for module in objective.modules for p in module.parameters())]
