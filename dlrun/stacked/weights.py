"""The weights of R runs as one matrix [R, P]: a row is a run, all its parameters one after the other.

So an update, a norm, an average is one operation for all parameters of all runs, and what belongs to a
run is a row. A `Layout` knows which part of a row is which parameter. A run whose parameters are smaller than
those of others (a polynomial of lower degree) has zeros where it has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """The shapes of the runs' parameters, the largest of each, in the order in which they lie in a row.

    >>> layout = Layout(((2, 3), (2,)))
    >>> [view.shape for view in layout.views(torch.zeros(5, 8))]
    [torch.Size([5, 2, 3]), torch.Size([5, 2])]
    """

    shapes: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> list[int]:
        """Return the number of values of each parameter."""
        return [prod(shape) for shape in self.shapes]

    def views(self, rows: Tensor) -> list[Tensor]:
        """Return the parameters [R, …] of all runs, of a matrix [R, P]."""
        # the gradient of a split is one concatenation, that of slices a sum of padded matrices
        parts = torch.split(rows, self.sizes, dim=1)
        return [part.view(len(rows), *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def columns(self, rows: Tensor) -> list[Tensor]:
        """Return the parameters of all runs with the runs as the last axis, [..., R], of a matrix [R, P].

        >>> [view.shape for view in Layout(((2, 3), (2,))).columns(torch.zeros(5, 8))]
        [torch.Size([2, 3, 5]), torch.Size([2, 5])]
        """
        parts = torch.split(rows.t().contiguous(), self.sizes)
        return [part.view(*shape, len(rows)) for part, shape in zip(parts, self.shapes, strict=True)]

    def of_row(self, row: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
        """Return the parameters of one run, of a row [P], in the shapes of `like`, its own."""
        parts = zip(torch.split(row, self.sizes), self.shapes, like, strict=True)
        return [part.view(shape)[tuple(map(slice, own.shape))] for part, shape, own in parts]

    def stacked(self, runs: Sequence[Sequence[Tensor]]) -> Tensor:
        """Return the parameters of each run as a row, [R, P].

        >>> Layout(((3,), (1, 1))).stacked([[torch.ones(2), torch.ones(1, 1)], [torch.ones(3), torch.ones(1, 1)]])
        tensor([[1., 1., 0., 1.],
                [1., 1., 1., 1.]])
        """
        # laid out in order, whatever the strides (channels_last) of a run alone
        return torch.stack([torch.cat(list(map(_flat, params, self.shapes))) for params in runs])


def layout(runs: Sequence[Sequence[Tensor]]) -> Layout:
    """Return the layout of the parameters of runs, of each the same number with the same axes."""
    shapes = [[tuple(p.shape) for p in params] for params in runs]
    return Layout(tuple(tuple(map(max, zip(*each, strict=True))) for each in zip(*shapes, strict=True)))


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
