"""The weights of R stacked runs as blocks: one matrix [R, P], or one [R, n] for each parameter. A row is a run.

So an update is a few operations for all runs. A `Layout` knows the blocks and where in them each parameter lies.
Small parameters share one block, which takes the fewest operations. Large ones have a block each: joining their
gradients would be one more pass over them. A run with smaller parameters than the others (a polynomial of lower
degree) has zeros in the rest of its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

LARGE = 1 << 13
"""Mean values of a parameter from which a block each is faster on a CPU (measured on a 2-core EPYC)."""


@dataclass(frozen=True)
class Layout:
    """The largest shape of each parameter over the runs.

    If `joined`, all parameters are one block.

    >>> layout = Layout(((2, 3), (2,)), joined=True)
    >>> [view.shape for view in layout.views([torch.zeros(5, 8)])]
    [torch.Size([5, 2, 3]), torch.Size([5, 2])]
    """

    shapes: tuple[tuple[int, ...], ...]
    joined: bool

    @property
    def sizes(self) -> list[int]:
        """Values of each parameter."""
        return [prod(shape) for shape in self.shapes]

    def views(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """All runs' parameters [R, …], as views of the blocks."""
        # the gradient of a split block is one concatenation, that of slices a sum of padded matrices
        return [part.view(len(part), *shape) for part, shape in zip(self.parts(blocks), self.shapes, strict=True)]

    def parts(self, blocks: Sequence[Tensor]) -> Sequence[Tensor]:
        """All runs' parameters as vectors [R, n], views of the blocks."""
        return self._split(blocks, dim=1)

    def columns(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """Copies of all runs' parameters, […, R].

        >>> [view.shape for view in Layout(((2, 3), (2,)), joined=True).columns([torch.zeros(5, 8)])]
        [torch.Size([2, 3, 5]), torch.Size([2, 5])]
        """
        parts = self._split([block.t().contiguous() for block in blocks], dim=0)
        return [part.view(*shape, part.shape[1]) for part, shape in zip(parts, self.shapes, strict=True)]

    def row(self, blocks: Sequence[Tensor], row: int, like: Sequence[Tensor]) -> list[Tensor]:
        """One run's parameters, as views of the blocks."""
        # in their own shapes: a smaller run's are the first values on each axis
        parts = zip(self._split([block[row] for block in blocks], dim=0), self.shapes, like, strict=True)
        return [part.view(shape)[tuple(map(slice, own.shape))] for part, shape, own in parts]

    def stack(self, runs: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """The blocks of runs with these parameters.

        >>> runs = [[torch.ones(2), torch.ones(1, 1)], [torch.ones(3), torch.ones(1, 1)]]
        >>> Layout(((3,), (1, 1)), joined=True).stack(runs)
        [tensor([[1., 1., 0., 1.],
                [1., 1., 1., 1.]])]
        >>> [block.shape for block in Layout(((3,), (1, 1)), joined=False).stack(runs)]
        [torch.Size([2, 3]), torch.Size([2, 1])]
        """
        # laid out in order, whatever the strides (channels_last) of a run alone
        rows = [list(map(_flat, params, self.shapes)) for params in runs]
        if self.joined:
            return [torch.stack([torch.cat(row) for row in rows])]
        return [torch.stack(parts) for parts in zip(*rows, strict=True)]

    def _split(self, blocks: Sequence[Tensor], *, dim: int) -> Sequence[Tensor]:
        return torch.split(blocks[0], self.sizes, dim) if self.joined else blocks


def make_layout(runs: Sequence[Sequence[Tensor]]) -> Layout:
    """The layout of runs with equally many parameters and axes."""
    shapes = [[tuple(p.shape) for p in params] for params in runs]
    largest = tuple(tuple(map(max, zip(*each, strict=True))) for each in zip(*shapes, strict=True))
    # by the size of one run, not of all: a timed few, or those left at the end, must lie in the same way
    large = sum(map(prod, largest)) >= LARGE * len(largest)
    return Layout(largest, joined=not (large and runs[0][0].device.type == "cpu"))


def keep_rows(blocks: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
    """The blocks of these runs only."""
    return [block.index_select(0, rows) for block in blocks]


def _flat(p: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A parameter padded with zeros to `shape`, as a vector."""
    if tuple(p.shape) == shape:
        return p.detach().reshape(-1)
    whole = p.detach().new_zeros(shape)
    whole[tuple(map(slice, p.shape))] = p.detach()
    return whole.reshape(-1)


def column(values: Sequence[float], like: Tensor) -> Tensor:
    """A number for each run, [R, 1].

    Its type and device are those of `like`.

    >>> column([0.5, 2.0], torch.zeros(2, 3)) * torch.ones(2, 3)
    tensor([[0.5000, 0.5000, 0.5000],
            [2.0000, 2.0000, 2.0000]])
    """
    return torch.tensor(list(values), dtype=like.dtype, device=like.device)[:, None]
