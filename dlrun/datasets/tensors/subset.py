"""A part of a split: its first samples, or some that are evenly spaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dlrun.types import Batch, Split


@dataclass(frozen=True)
class Subset:
    """`n` samples of a split, `step` apart (a quotient, such as 7 / 3) from its first on."""

    split: Split
    n: int
    step: tuple[int, int] = (1, 1)

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.n

    @property
    def bytes_per_token(self) -> float | None:
        """Return that of the whole split, if it is a text."""
        return bytes_per_token(self.split)

    def gather(self, index: Tensor) -> Batch:
        """Return the samples at `index`."""
        over, under = self.step
        return self.split.gather(index * over // under)

    def to(self, device: torch.device) -> Subset:
        """Return the same samples on `device`."""
        return Subset(self.split.to(device), self.n, self.step)


def take_first(split: Split, n: int) -> Split:
    """Return the first `n` samples of a split, or all of it if there are no more.

    >>> from dlrun.datasets.tensors.tensors import TensorSplit
    >>> ten = TensorSplit(torch.arange(10), torch.arange(10))
    >>> take_first(ten, 4).gather(torch.arange(4)).x
    tensor([0, 1, 2, 3])
    """
    # a text has a way of its own: it stays one
    own: Callable[[int], Split] | None = getattr(split, "take_first", None)
    if own:
        return own(n)
    return Subset(split, min(n, len(split)))


def take_spaced(split: Split, n: int | None) -> Split:
    """Return `n` samples of a split, evenly spaced, or all of it if `n` is None or there are no more.

    >>> from dlrun.datasets.tensors.tensors import TensorSplit
    >>> ten = TensorSplit(torch.arange(10), torch.arange(10))
    >>> take_spaced(ten, 4).gather(torch.arange(4)).x
    tensor([0, 2, 5, 7])
    """
    if n is None or n >= len(split):
        return split
    # rows that are walked along have a way of their own
    own: Callable[[int], Split] | None = getattr(split, "take_spaced", None)
    return own(n) if own else Subset(split, n, (len(split), n))


def bytes_per_token(split: Split) -> float | None:
    """Return how many bytes of text a predicted token of a split stands for on average, if it knows."""
    found: float | None = getattr(split, "bytes_per_token", None)
    return found
