"""A split in memory, or on the device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dlrun.nests.batch import Batch, plain_batch
from dlrun.nests.nest import Nest, size_of


@dataclass(frozen=True, eq=False)
class TensorSplit:
    """Samples as tensors or nests of tensors, `x` and `y`, all [N, ...], and perhaps their weights [N]."""

    x: Nest
    y: Nest
    weight: Tensor | None = None

    def __len__(self) -> int:
        return size_of(self.x)

    @cached_property
    def plain(self) -> bool:
        """Two tensors, without weights."""
        return self.weight is None and isinstance(self.x, Tensor) and isinstance(self.y, Tensor)

    def gather(self, index: Tensor) -> Batch:
        """The samples at `index` (int64 [B]), in that order.

        An index of all samples in order gives the split's own tensors: change none in place.
        """
        if not self.plain:
            whole = Batch(self.x, self.y, self.weight)
            return whole if self._is_whole(index) else whole.map(lambda t: t.index_select(0, index))
        if index.shape[0] == self.x.shape[0] and self._is_whole(index):
            return plain_batch((self.x, self.y))
        return plain_batch((self.x.index_select(0, index), self.y.index_select(0, index)))

    def to(self, device: torch.device) -> TensorSplit:
        """Move the tensors to `device`."""
        moved = Batch(self.x, self.y, self.weight).to(device)
        return TensorSplit(*moved, moved.weight)

    def _is_whole(self, index: Tensor) -> bool:
        if index.shape[0] != len(self):
            return False
        # only on the CPU: elsewhere the comparison would wait for the device
        return index.device.type == "cpu" and torch.equal(index, torch.arange(len(index)))
