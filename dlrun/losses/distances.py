"""Distances between embeddings, and the nearest ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

ENTRIES = 1 << 24
"""Distances to hold at once, at most."""


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a - b|² of each row of `a` [N, D] and of `b` [M, D]: [N, M], never negative.

    >>> squared_distances(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    tensor([[25.,  1.]])
    """
    # a product of matrices: the differences themselves would take D times the memory
    with torch.autocast(a.device.type, enabled=False), _without_tf32():
        # distances among rows far from 0 would be lost in rounding
        centre = b.detach().mean(0)
        a, b = a - centre, b - centre
        return ((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T).clamp(min=0)


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Compute float32 products in float32: of tf32's three digits few are left in a difference."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def nearest(queries: Tensor, among: Tensor | None = None, *, k: int = 1) -> Tensor:
    """The places of the `k` rows of `among` [M, D] nearest to each query [N, D]: int64 [N, k], the nearest first.

    Without `among` they are other queries. Fewer rows than k give all of them. It computes in float64, in chunks whose
    size depends on M alone, so the places are the same however the rows came about.
    """
    if queries.device.type == "mps":  # it has no float64
        queries, among = queries.cpu(), None if among is None else among.cpu()
    others = (queries if among is None else among).double()
    k = min(k, len(others) - (among is None))
    rows = torch.arange(len(queries), device=queries.device)
    found = []
    for chunk in torch.split(rows, max(1, ENTRIES // max(1, len(others)))):
        distances = squared_distances(queries[chunk].double(), others)
        if among is None:
            distances[torch.arange(len(chunk), device=chunk.device), chunk] = torch.inf
        # `argmin` takes the first of equals, `topk` any
        found.append(distances.argmin(1, keepdim=True) if k == 1 else distances.topk(k, largest=False).indices)
    return torch.cat(found)
