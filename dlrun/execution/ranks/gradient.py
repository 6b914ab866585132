"""The gradient of a batch of which several processes have parts: DDP adds it up.

The loss is the mean over the whole batch, Σ w·v / Σ w over all processes, whatever part each of them has. Each process
differentiates its own sum Σ w·v, and DDP divides by the sum of all weights in place of the number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from dlrun.engine.objective import Objective
from dlrun.execution.ranks.batches import StandIn
from dlrun.metrics import count
from dlrun.optimizers.descent import align, cut
from dlrun.types import Batch


class BatchSum(nn.Module):
    """An objective as the module that DDP or FSDP wraps: a batch's sum of weighted losses, and its weight."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.parts = nn.ModuleList(objective.modules)
        self._objective = objective

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        loss, weight = self._objective.weighed(batch)
        if weight is None:
            weight = loss.detach().new_full((), 1.0) * _count(batch)
        return loss * weight, weight


def _count(batch: Batch) -> int | Tensor:
    """The samples of a batch, of classes those that count."""
    y = batch.y
    whole = isinstance(y, Tensor) and not y.is_floating_point()
    return count(y) if whole else batch.size


class RankGradient:
    """The mean loss of a whole batch, and its gradient, from the part that this process has.

    `unused`: not all parameters have an influence on the loss, and DDP looks in each step for those that have none.
    """

    def __init__(self, objective: Objective, *, unused: bool) -> None:
        self._ddp = DistributedDataParallel(
            BatchSum(objective), find_unused_parameters=unused, gradient_as_bucket_view=True
        )
        # a lambda, for DDP compares the annotations of others by identity
        self._ddp.register_comm_hook(None, lambda _, bucket: self._add_up(bucket))
        self._weight = torch.zeros(())
        self._waiting: dist.Work | None = None

    def __call__(self, batch: Batch, params: Sequence[Tensor], parts: int) -> tuple[Tensor, list[Tensor], Tensor]:
        """The mean loss of this process's part, the gradient of the whole batch, and the part's weight.

        The part is cut into `parts` further ones, one after another.
        """
        for p in params:
            p.grad = None
        portions = [batch] if parts == 1 else cut(batch, parts)
        losses, weights = [], []
        for n, portion in enumerate(portions, 1):
            last = n == len(portions)
            with nullcontext() if last else self._ddp.no_sync():
                loss, weight = self._ddp(portion)
                if isinstance(batch, StandIn):
                    loss, weight = loss * 0, weight * 0
                # the mean over no target is no number
                losses.append(loss.detach().where(weight > 0, 0.0))
                weights.append(weight)
                if last:
                    self._share(sum(weights[1:], weights[0]))
                loss.backward()
        total = sum(weights[1:], weights[0])
        mean = sum(losses[1:], losses[0]) / total
        return mean, [align(p.grad, p) for p in params], total

    def _share(self, weight: Tensor) -> None:
        """Begin to add up the weights; the backward pass goes on meanwhile."""
        self._weight = weight.double() if weight.device.type != "mps" else weight.clone()
        self._waiting = dist.all_reduce(self._weight, async_op=True)

    def _add_up(self, bucket: Any) -> torch.futures.Future[Tensor]:
        if self._waiting is not None:
            self._waiting.wait()
            self._waiting = None
        buffer = bucket.buffer()
        # divided first, as DDP does: a sum may overflow
        buffer.div_(self._weight.to(buffer.dtype))
        added: torch.futures.Future[Tensor] = dist.all_reduce(buffer, async_op=True).get_future()
        return added.then(lambda done: done.value()[0])
