"""The batches of R stacked runs: each run's own, in the order of its own `Batches`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import repeat

import torch
from torch import Tensor

from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine.batches import Batches
from dlrun.types import Batch, Split


class StackedBatches:
    """The batches of R runs, side by side.

    x is [R, B, …], y [R, B, …]; the runs have equal batch sizes and equally many samples. `before_batch` is called
    before each batch; it may drop runs by `keep`. Runs with the same samples share them: a batch of all runs is one
    operation.
    """

    def __init__(self, members: Sequence[Batches], before_batch: Callable[[], None]) -> None:
        self._members = list(members)
        self._before_batch = before_batch
        self._changed = False
        self._table = self._make_table()

    @property
    def size(self) -> int:
        """Samples in a batch of all runs."""
        return self._members[0].size * len(self._members)

    def seen(self, steps: int) -> int:
        """Samples of each run in the first `steps` batches: throughput and utilisation are a run's own."""
        return self._members[0].seen(steps)

    def keep(self, rows: Tensor) -> None:
        """Keep these runs only."""
        self._members = [self._members[row] for row in rows.tolist()]
        self._table = self._make_table()
        self._changed = True

    def start(self, step: int) -> Generator[Batch, None, None]:
        self._before_batch()
        while True:
            self._changed = False
            for batch in self._from(step):
                yield batch
                step += 1
                self._before_batch()
                if self._changed:  # start again at this step with the runs that are left
                    break

    def _make_table(self) -> SampleTable | None:
        # each run draws its augmentation from a generator of its own
        if any(member.augment and not member.only for member in self._members):
            return None
        return sample_table([member.split for member in self._members], self._members[0].device)

    def _from(self, step: int) -> Iterator[Batch]:
        if self._table is None:
            return map(_stack, zip(*(member.start(step) for member in self._members), strict=True))
        return self._gather(self._table, step)

    def _gather(self, table: SampleTable, step: int) -> Iterator[Batch]:
        size, per_epoch = self._members[0].size, self._members[0].per_epoch
        if size >= table.samples:  # full batches are never shuffled: every step has the same
            yield from repeat(table.rows(torch.arange(table.samples, device=table.x.device)))
        while True:
            epoch, position = divmod(step, per_epoch)
            places = table.places(self._orders(epoch))
            for index in torch.split(places, size, dim=1)[position:per_epoch]:
                yield table.at(index)
            step = (epoch + 1) * per_epoch

    def _orders(self, epoch: int) -> Tensor:
        """The order of an epoch for each run, [R, N]."""
        return torch.stack([member.order(epoch) for member in self._members])


class SampleTable:
    """The samples of U splits in one tensor.

    `x` is [U·N, …], with N samples of each split, and `y` likewise; `chosen` is the split of each run.
    """

    def __init__(self, splits: Sequence[TensorSplit], chosen: Sequence[int]) -> None:
        self.samples = len(splits[0])
        # plain ones, as `stacked.why_not` has seen
        self.x: Tensor
        self.y: Tensor
        self.x, self.y = (splits[0].x, splits[0].y) if len(splits) == 1 else _join(splits)
        # the place of the first sample of each run's split
        self._first = torch.tensor(chosen)[:, None] * self.samples

    def places(self, orders: Tensor) -> Tensor:
        """Indices into `x` for `orders` [R, N], on the device."""
        return (orders + self._first).to(self.x.device)

    def at(self, places: Tensor) -> Batch:
        """The samples at `places` [R, B]."""
        flat = places.reshape(-1)  # index_select takes a vector
        x, y = self.x.index_select(0, flat), self.y.index_select(0, flat)
        return Batch(x.view(*places.shape, *x.shape[1:]), y.view(*places.shape, *y.shape[1:]))

    def rows(self, index: Tensor) -> Batch:
        """The samples `index` [B] of every run's split."""
        return self.at(index[None] + self._first.to(index.device))


def sample_table(splits: Sequence[Split], device: torch.device) -> SampleTable | None:
    """One table of all runs' splits, equal ones once.

    None unless all are tensors on the device.
    """
    # by the exact type: a subclass may gather otherwise
    tensors = [split for split in splits if type(split) is TensorSplit and split.x.device.type == device.type]
    if len(tensors) < len(splits):
        return None
    unique: list[TensorSplit] = []
    chosen: list[int] = []
    for split in tensors:
        # sweeps over seeds mostly share one data set: it is stored once
        same = next((place for place, other in enumerate(unique) if _equal(split, other)), None)
        chosen.append(len(unique) if same is None else same)
        unique += [split] if same is None else []
    return SampleTable(unique, chosen)


def _equal(a: TensorSplit, b: TensorSplit) -> bool:
    return a is b or all(s is t or torch.equal(s, t) for s, t in ((a.x, b.x), (a.y, b.y)))


def _join(splits: Sequence[TensorSplit]) -> tuple[Tensor, Tensor]:
    return torch.cat([split.x for split in splits]), torch.cat([split.y for split in splits])


def _stack(batches: tuple[Batch, ...]) -> Batch:
    return Batch(torch.stack([batch.x for batch in batches]), torch.stack([batch.y for batch in batches]))
