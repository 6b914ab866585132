"""Values of tensors kept and put back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


@torch.no_grad()
def put(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Write values into tensors, which stay the same objects in the same memory."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


@contextmanager
def put_back(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Give a context after which tensors have the values that they had before.

    >>> x = torch.ones(2)
    >>> with put_back([x]):
    ...     _ = x.zero_()
    >>> x
    tensor([1., 1.])
    """
    values = [t.detach().clone() for t in tensors]
    try:
        yield
    finally:
        put(tensors, values)


def apart(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Return the Euclidean distance of two lists of tensors, each list taken for one long vector.

    >>> apart([torch.tensor([3.0]), torch.tensor([[1.0]])], [torch.zeros(1), torch.tensor([[5.0]])])
    5.0
    """
    differences = (x.detach().double() - y.detach().double() for x, y in zip(a, b, strict=True))
    return float(sum(float(d.square().sum()) for d in differences) ** 0.5)


def agree(before: Sequence[Tensor], expected: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    """Return whether two ways of taking steps changed tensors alike, up to a tenth of the change.

    They are looked at as a whole, but for single numbers. One component may well differ: where a gradient is zero but
    for rounding, as that of a bias before a batch norm, Adam makes a full step of it, in any direction.
    """
    rows = list(zip(before, expected, found, strict=True))
    groups = [[row for row in rows if row[0].ndim], *([row] for row in rows if not row[0].ndim)]
    return all(_alike(*map(list, zip(*group, strict=True))) for group in groups if group)


def _alike(before: list[Tensor], expected: list[Tensor], found: list[Tensor]) -> bool:
    rounding = 1e-6 * apart(expected, [torch.zeros_like(t) for t in expected])
    return apart(expected, found) <= 0.1 * apart(expected, before) + rounding
