"""Smoothing of n-gram counts: modified Kneser-Ney (Chen and Goodman 1998), and additive.

A context gives some of its probability to the tokens seen after it, and leaves the rest to the context one shorter.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FALLBACK = (0.5, 1.0, 1.5)
"""The discounts of KenLM for counts without ones, twos or threes, such as of a few characters seen very often."""


class Shares(NamedTuple):
    """Probability `given` to n-grams [G], and `left` by contexts [C]."""

    given: Tensor
    left: Tensor


def kneser_ney(counts: Tensor, owner: Tensor, contexts: int) -> Shares:
    """Shares by modified Kneser-Ney.

    The `counts` [G] are of n-grams with the contexts `owner` [G].

    >>> given, left = kneser_ney(torch.tensor([1, 3]), torch.tensor([0, 0]), 1)
    >>> given, left  # with the discounts 0.5 and 1.5 of FALLBACK
    (tensor([0.1250, 0.3750]), tensor([0.5000]))
    """
    discounts = torch.tensor([0.0, *_discounts(counts)], dtype=torch.float64, device=counts.device)
    kind = counts.clamp(max=3)
    total = counts.new_zeros(contexts).index_add_(0, owner, counts).clamp(min=1).double()
    # counts of counts, not a sum of discounts: integers add up to the same bits in any order
    number = counts.new_zeros(contexts * 4).index_add_(0, owner * 4 + kind, torch.ones_like(counts)).view(-1, 4)
    kept = (number.double() @ discounts) / total
    # a context only ever seen at the beginning of a window has no continuation counts
    kept = torch.where(number[:, 1:].sum(1) > 0, kept, 1.0)
    return Shares(((counts - discounts[kind]) / total[owner]).float(), kept.float())


def additive(counts: Tensor, owner: Tensor, contexts: int, *, mass: float) -> Shares:
    """Shares with `mass` uniform tokens added to each context."""
    total = counts.new_zeros(contexts).index_add_(0, owner, counts).double() + mass
    return Shares((counts / total[owner]).float(), (mass / total).float())


def _discounts(counts: Tensor) -> tuple[float, ...]:
    """The discounts D₁, D₂ and D₃₊.

    Dᵢ = i - (i+1)·Y·nᵢ₊₁/nᵢ with Y = n₁/(n₁ + 2n₂), for nᵢ n-grams with the count i.
    """
    n1, n2, n3, n4 = (int((counts == i).sum()) for i in range(1, 5))
    if not (n1 and n2 and n3):
        return FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 < d <= i for i, d in enumerate(found, start=1)) else FALLBACK
