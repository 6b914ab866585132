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
