"""The weights of R runs as one matrix [R, P], or as one for each parameter, [R, n]: a row is a run.

So an update is a few operations for all runs, and what belongs to a run is a row. A `Layout` knows how many matrices
there are, its blocks, and which part of which is a parameter. Small parameters are one block, which takes the fewest
operations; large ones have a block each, for to join their gradients would be one more pass over them. A run whose
parameters are smaller than those of others (a polynomial of lower degree) has zeros where it has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

LARGE = 1 << 13
"""The values that a parameter of a run has on average from which on, on a CPU, a block each is faster (measured)."""


@dataclass(frozen=True)
class Layout:
    """The shapes of the runs' parameters, the largest of each, and whether they are one block or a block each.

    >>> layout = Layout(((2, 3), (2,)), joined=True)
    >>> [view.shape for view in layout.views([torch.zeros(5, 8)])]
    [torch.Size([5, 2, 3]), torch.Size([5, 2])]
    """

    shapes: tuple[tuple[int, ...], ...]
    joined: bool

    @property
    def sizes(self) -> list[int]:
        """Return the number of values of each parameter."""
        return [prod(shape) for shape in self.shapes]

    def views(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """Return the parameters [R, …] of all runs."""
        # the gradient of a split block is one concatenation, that of slices a sum of padded matrices
        parts = self._split(blocks, dim=1)
        return [part.view(len(part), *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def columns(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """Return the parameters of all runs with the runs as the last axis, [..., R].

        >>> [view.shape for view in Layout(((2, 3), (2,)), joined=True).columns([torch.zeros(5, 8)])]
        [torch.Size([2, 3, 5]), torch.Size([2, 5])]
        """
        parts = self._split([block.t().contiguous() for block in blocks], dim=0)
        return [part.view(*shape, part.shape[1]) for part, shape in zip(parts, self.shapes, strict=True)]

    def of_row(self, blocks: Sequence[Tensor], row: int, like: Sequence[Tensor]) -> list[Tensor]:
        """Return the parameters of the run `row`, in the shapes of `like`, its own."""
        parts = zip(self._split([block[row] for block in blocks], dim=0), self.shapes, like, strict=True)
        return [part.view(shape)[tuple(map(slice, own.shape))] for part, shape, own in parts]

    def stacked(self, runs: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Return the blocks of runs with these parameters.

        >>> runs = [[torch.ones(2), torch.ones(1, 1)], [torch.ones(3), torch.ones(1, 1)]]
        >>> Layout(((3,), (1, 1)), joined=True).stacked(runs)
        [tensor([[1., 1., 0., 1.],
                [1., 1., 1., 1.]])]
        >>> [block.shape for block in Layout(((3,), (1, 1)), joined=False).stacked(runs)]
        [torch.Size([2, 3]), torch.Size([2, 1])]
        """
        # laid out in order, whatever the strides (channels_last) of a run alone
        rows = [list(map(_flat, params, self.shapes)) for params in runs]
        if self.joined:
            return [torch.stack([torch.cat(row) for row in rows])]
        return [torch.stack(parts) for parts in zip(*rows, strict=True)]

    def _split(self, blocks: Sequence[Tensor], *, dim: int) -> Sequence[Tensor]:
        """Return blocks parameter by parameter, in the same memory."""
        return torch.split(blocks[0], self.sizes, dim) if self.joined else blocks


def layout(runs: Sequence[Sequence[Tensor]]) -> Layout:
    """Return the layout of the parameters of runs, of each the same number with the same axes."""
    shapes = [[tuple(p.shape) for p in params] for params in runs]
    largest = tuple(tuple(map(max, zip(*each, strict=True))) for each in zip(*shapes, strict=True))
    # by a run, not by all: so a few of them that are tried or timed lie as all do, and those that are left do
    large = sum(map(prod, largest)) >= LARGE * len(largest)
    return Layout(largest, joined=not (large and runs[0][0].device.type == "cpu"))


def keep_rows(blocks: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
    """Return the blocks of these runs only."""
    return [block.index_select(0, rows) for block in blocks]


def _flat(p: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a parameter as a vector, zeros behind it along every axis that is shorter than `shape` says."""
    if tuple(p.shape) == shape:
        return p.detach().reshape(-1)
    whole = p.detach().new_zeros(shape)
    whole[tuple(map(slice, p.shape))] = p.detach()
    return whole.reshape(-1)


def column(values: Sequence[float], like: Tensor) -> Tensor:
    """Return a number for each run as [R, 1], of the type and on the device of `like`.

    >>> column([0.5, 2.0], torch.zeros(2, 3)) * torch.ones(2, 3)
    tensor([[0.5000, 0.5000, 0.5000],
            [2.0000, 2.0000, 2.0000]])
    """
    return torch.tensor(list(values), dtype=like.dtype, device=like.device)[:, None]
