"""A batch: inputs and targets, each a tensor or a nest of tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
    plain: bool = True
    """Two tensors, without weights and mask? A step asks this alone."""

    def __new__(cls, x: Nest, y: Nest, weight: Tensor | None = None, mask: Tensor | None = None) -> Batch:
        self = tuple.__new__(cls, (x, y))
        # a plain one leaves these to the class: attributes of its own would cost a dictionary
        if weight is not None or mask is not None or is_nest(x) or is_nest(y):
            self.plain, self.weight, self.mask = False, weight, mask
        return self

    def _replace(self, **changes: Any) -> Batch:
        """The batch with another `x`, `y`, `weight` or `mask`."""
        # a NamedTuple's own knows its fields alone, and would drop weights and mask
        return Batch(**{"x": self.x, "y": self.y, "weight": self.weight, "mask": self.mask, **changes})

    @property
    def size(self) -> int:
        """The number of samples."""
        return size_of(self.x)

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with `function` of each of its tensors."""
        x, y = (map_nest(function, nest) for nest in self)
        weight, mask = (None if t is None else function(t) for t in (self.weight, self.mask))
        return Batch(x, y, weight, mask)

    def rows(self, which: slice | Tensor) -> Batch:
        """Some of the samples."""
        return self.map(lambda t: t[which])

    def tensors(self) -> list[Tensor]:
        """All of its tensors: inputs, targets, weights, mask."""
        return [*leaves(self.x), *leaves(self.y), *(t for t in (self.weight, self.mask) if t is not None)]

    def to(self, device: Any, *, non_blocking: bool = False) -> Batch:
        """The batch on another device."""
        return self.map(lambda t: t.to(device, non_blocking=non_blocking))


plain_batch: Callable[[tuple[Tensor, Tensor]], Batch] = partial(tuple.__new__, Batch)
"""A plain batch of a pair: for a step, which knows that it is one and would feel a call of Python."""
