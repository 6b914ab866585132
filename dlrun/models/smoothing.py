"""How much of their probability contexts give to what was seen after them, and how much they leave to shorter ones.

Modified Kneser-Ney (Chen and Goodman 1998) and additive smoothing, for `ngram`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FALLBACK = (0.5, 1.0, 1.5)
"""The discounts where the counts of counts give none, as of a few characters, each seen a thousand times (KenLM's)."""


class Shares(NamedTuple):
    """What a context gives to each token seen after it [G], and what it leaves to the shorter one [C]."""

    given: Tensor
    left: Tensor


def kneser_ney(counts: Tensor, owner: Tensor, contexts: int) -> Shares:
    """Return the shares by modified Kneser-Ney: `counts` [G] of n-grams whose context is `owner` [G].

    >>> given, left = kneser_ney(torch.tensor([1, 3]), torch.tensor([0, 0]), 1)
    >>> given, left  # with the discounts 0.5 and 1.5 of which nothing else is known
    (tensor([0.1250, 0.3750]), tensor([0.5000]))
    """
    discounts = torch.tensor([0.0, *_discounts(counts)], dtype=torch.float64, device=counts.device)
    kind = counts.clamp(max=3)
    total = counts.new_zeros(contexts).index_add_(0, owner, counts).clamp(min=1).double()
    # counts of counts rather than a sum of discounts: whole numbers add up the same in any order
    number = counts.new_zeros(contexts * 4).index_add_(0, owner * 4 + kind, torch.ones_like(counts)).view(-1, 4)
    kept = (number.double() @ discounts) / total
    # a context that is never preceded, at the windows' beginnings, has no counts to share by
    kept = torch.where(number[:, 1:].sum(1) > 0, kept, 1.0)
    return Shares(((counts - discounts[kind]) / total[owner]).float(), kept.float())


def additive(counts: Tensor, owner: Tensor, contexts: int, *, mass: float) -> Shares:
    """Return the shares where a uniform distribution counts for `mass` tokens after each context."""
    total = counts.new_zeros(contexts).index_add_(0, owner, counts).double() + mass
    return Shares((counts / total[owner]).float(), (mass / total).float())


def _discounts(counts: Tensor) -> tuple[float, ...]:
    """Return D₁, D₂ and D₃₊ = i - (i+1)·Y·nᵢ₊₁/nᵢ with Y = n₁/(n₁ + 2n₂), nᵢ n-grams having the count i."""
    n1, n2, n3, n4 = (int((counts == i).sum()) for i in range(1, 5))
    if not (n1 and n2 and n3):
        return FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 < d <= i for i, d in enumerate(found, start=1)) else FALLBACK
