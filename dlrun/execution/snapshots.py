"""Saving and restoring the values of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


@torch.no_grad()
def assign(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy values into tensors, in place."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


@contextmanager
def preserve(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Restore the values of tensors after the context.

    >>> x = torch.ones(2)
    >>> with preserve([x]):
    ...     _ = x.zero_()
    >>> x
    tensor([1., 1.])
    """
    values = [t.detach().clone() for t in tensors]
    try:
        yield
    finally:
        assign(tensors, values)


def distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """The Euclidean distance, each list as one vector.

    >>> distance([torch.tensor([3.0]), torch.tensor([[1.0]])], [torch.zeros(1), torch.tensor([[5.0]])])
    5.0
    """
    differences = (_wide(x) - _wide(y) for x, y in zip(a, b, strict=True))
    return float(sum(float(d.square().sum()) for d in differences) ** 0.5)


def _wide(t: Tensor) -> Tensor:
    return (torch.view_as_real(t.detach()) if t.is_complex() else t.detach()).double()


def agree(before: Sequence[Tensor], expected: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    """Did two ways change tensors alike, within a tenth?

    Tensors are compared as one vector, scalars each by itself.
    """
    # one component may well differ: where a gradient is zero but for rounding, as that of a bias before a batch norm,
    # Adam makes a full step of it, in any direction
    rows = list(zip(before, expected, found, strict=True))
    groups = [[row for row in rows if row[0].ndim], *([row] for row in rows if not row[0].ndim)]
    return all(_alike(*map(list, zip(*group, strict=True))) for group in groups if group)


def _alike(before: list[Tensor], expected: list[Tensor], found: list[Tensor]) -> bool:
    # of single precision: tensors that hardly change differ by no more
    rounding = 1e-6 * distance(expected, [torch.zeros_like(t) for t in expected])
    return distance(expected, found) <= 0.1 * distance(expected, before) + rounding
