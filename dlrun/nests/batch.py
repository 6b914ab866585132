"""A batch: inputs and targets, each a tensor or a nest of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from dlrun.nests.nest import Nest, is_nest, leaves, map_nest, size_of

if TYPE_CHECKING:  # torch takes a second to import, and no type here needs it at run time
    from torch import Tensor


class _Pair(NamedTuple):
    x: Any
    y: Any


class Batch(_Pair):
    """Inputs `x` and targets `y`, each a tensor [B, ...] or a tuple or dict of such.

    `weight` [B] has the weights of the samples in the mean loss. `mask` [B, T] is true for the elements of the
    targets that count, false where they are padded. A batch unpacks as the pair `x, y`.

    >>> x, y = Batch("inputs", "targets")
    """

    weight: Tensor | None = None
    mask: Tensor | None = None
    weighted: bool = False
    """Is there a weight or a mask? A step asks this alone."""

    def __new__(cls, x: Nest, y: Nest, weight: Tensor | None = None, mask: Tensor | None = None) -> Batch:
        self = tuple.__new__(cls, (x, y))
        # most batches have neither: an attribute of the class costs nothing
        if weight is not None:
            self.weight, self.weighted = weight, True
        if mask is not None:
            self.mask, self.weighted = mask, True
        return self

    @property
    def plain(self) -> bool:
        """Two tensors, without weights and mask."""
        return not self.weighted and not (is_nest(self.x) or is_nest(self.y))

    @property
    def size(self) -> int:
        """The number of samples."""
        x = self.x
        size: int = size_of(x) if isinstance(x, tuple | list | dict) else x.shape[0]
        return size

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with `function` of each of its tensors."""
        x, y = self
        if not self.weighted:
            return Batch(map_nest(function, x), map_nest(function, y))
        weight, mask = (None if t is None else function(t) for t in (self.weight, self.mask))
        return Batch(map_nest(function, x), map_nest(function, y), weight, mask)

    def rows(self, which: slice | Tensor) -> Batch:
        """Some of the samples."""
        return self.map(lambda t: t[which])

    def tensors(self) -> list[Tensor]:
        """All of its tensors: inputs, targets, weights, mask."""
        return [*leaves(self.x), *leaves(self.y), *(t for t in (self.weight, self.mask) if t is not None)]

    def to(self, device: Any, *, non_blocking: bool = False) -> Batch:
        """The batch on another device."""
        return self.map(lambda t: t.to(device, non_blocking=non_blocking))
