"""Some samples of a split: the first ones, or evenly spaced ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dlrun.types import Batch, Split


@dataclass(frozen=True)
class Subset:
    """`n` samples of a split, evenly spaced.

    They are a `step` apart, such as 7 / 3.
    """

    split: Split
    n: int
    step: tuple[int, int] = (1, 1)

    def __len__(self) -> int:
        return self.n

    @property
    def bytes_per_token(self) -> float | None:
        """The mean bytes of a token that these samples predict, if they are of a text."""
        counted: Callable[[Tensor], float | None] | None = getattr(self.split, "bytes_per_token_of", None)
        return counted(self._places(torch.arange(self.n))) if counted else bytes_per_token(self.split)

    def gather(self, index: Tensor) -> Batch:
        """The samples at `index`."""
        return self.split.gather(self._places(index))

    def _places(self, index: Tensor) -> Tensor:
        over, under = self.step
        # in whole numbers: no rounding changes the choice
        return index * over // under

    def to(self, device: torch.device) -> Subset:
        """The same samples on `device`."""
        return Subset(self.split.to(device), self.n, self.step)


def take_first(split: Split, n: int) -> Split:
    """The first `n` samples of a split.

    All of them if there are fewer.

    >>> from dlrun.datasets.tensors.split import TensorSplit
    >>> ten = TensorSplit(torch.arange(10), torch.arange(10))
    >>> take_first(ten, 4).gather(torch.arange(4)).x
    tensor([0, 1, 2, 3])
    """
    # a text has a method for it: the result is a text again
    own: Callable[[int], Split] | None = getattr(split, "take_first", None)
    if own:
        return own(n)
    return Subset(split, min(n, len(split)))


def take_spaced(split: Split, n: int | None) -> Split:
    """`n` evenly spaced samples of a split (None: all).

    >>> from dlrun.datasets.tensors.split import TensorSplit
    >>> ten = TensorSplit(torch.arange(10), torch.arange(10))
    >>> take_spaced(ten, 4).gather(torch.arange(4)).x
    tensor([0, 2, 5, 7])
    """
    if n is None or n >= len(split):
        return split
    # the rows of a text have a method for it: a model's memory goes on within a row
    own: Callable[[int], Split] | None = getattr(split, "take_spaced", None)
    return own(n) if own else Subset(split, n, (len(split), n))


def bytes_per_token(split: Split) -> float | None:
    """The mean bytes of a predicted token, or None."""
    found: float | None = getattr(split, "bytes_per_token", None)
    return found
