"""A split in memory, or on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlrun.nests.batch import Batch
from dlrun.nests.nest import Nest, size_of


@dataclass(frozen=True, eq=False)
class TensorSplit:
    """Samples as tensors or nests of tensors, `x` and `y`, all [N, ...], and perhaps their weights [N]."""

    x: Nest
    y: Nest
    weight: Tensor | None = None

    def __len__(self) -> int:
        return size_of(self.x)

    @property
    def plain(self) -> bool:
        """Two tensors, without weights."""
        return self.weight is None and isinstance(self.x, Tensor) and isinstance(self.y, Tensor)

    def gather(self, index: Tensor) -> Batch:
        """The samples at `index` (int64 [B]), in that order.

        An index of all samples in order gives the split's own tensors: change none in place.
        """
        x, y = self.x, self.y
        # before all else: this is a part of each step
        if self.weight is None and isinstance(x, Tensor) and isinstance(y, Tensor):
            if index.shape[0] == x.shape[0] and self._is_whole(index):
                return Batch(x, y)
            return Batch(x.index_select(0, index), y.index_select(0, index))
        whole = Batch(x, y, self.weight)
        if index.shape[0] == len(self) and self._is_whole(index):
            return whole
        return whole.map(lambda t: t.index_select(0, index))

    def to(self, device: torch.device) -> TensorSplit:
        """Move the tensors to `device`."""
        moved = Batch(self.x, self.y, self.weight).to(device)
        return TensorSplit(*moved, moved.weight)

    def _is_whole(self, index: Tensor) -> bool:
        # only on the CPU: elsewhere the comparison would wait for the device
        return index.device.type == "cpu" and torch.equal(index, torch.arange(len(index)))
