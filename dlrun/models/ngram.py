"""An n-gram model with interpolated modified Kneser-Ney smoothing.

S. Chen, J. Goodman, An Empirical Study of Smoothing Techniques for Language Modeling, 1998. With c the counts of the
tokens after a context h, and h' the context without its first token,

    P(w | h) = (c(h, w) - D(c(h, w))) / c(h) + λ(h) · P'(w | h'),    λ(h) = Σ_w D(c(h, w)) / c(h),

where P' takes continuation counts for c: the number of different tokens before (h', w). Below the shortest context
stands 1 / V. The discounts D₁, D₂, D₃₊ of each length follow from the numbers of n-grams seen once to four times. An
unseen context leaves all probability to the shorter one.

Changed: the first tokens of a window have shorter contexts, for the model sees no further back than the window. The
model of that lower order predicts them, from its own counts.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlrun.errors import ConfigError
from dlrun.models.smoothing import Shares, additive, kneser_ney
from dlrun.models.text import require_vocabulary

__all__ = ["NGram"]

CHUNK = 2**22
"""Probabilities computed at once, 16 MiB of float32."""

TINY = torch.finfo(torch.float32).tiny
"""The smallest probability, so that its logarithm is finite."""


class NGram(nn.Module):
    """N-gram model of the next token.

    It maps tokens x [B, T] to log P [B, T, V], and looks back at the last `order` - 1 tokens; an `order` of None is 3
    for a vocabulary of at least 1000 tokens, else 5. `optimizer=counting` calls `count(x, y)` for each window, once.
    Additive smoothing is (c(h, w) + alpha) / (c(h) + alpha·V), from the longest context alone. Raises `ConfigError` for
    data without tokens, and for arguments out of range.

    >>> model = NGram(3, order=2, smoothing="additive")
    >>> model.count(torch.tensor([[0, 1, 0, 1]]), torch.tensor([[1, 0, 1, 2]]))
    >>> model(torch.tensor([[0, 1]])).exp()  # after 0 came 1 twice; after 1 came 0 and 2
    tensor([[[0.2000, 0.6000, 0.2000],
             [0.4000, 0.2000, 0.4000]]])
    """

    def __init__(
        self,
        vocabulary: int | None,
        *,
        order: int | None = None,
        smoothing: Literal["kneser_ney", "additive"] = "kneser_ney",
        alpha: float = 1.0,
    ) -> None:
        super().__init__()
        self.vocabulary = require_vocabulary(vocabulary, choice="ngram")
        self.order = order if order is not None else 3 if self.vocabulary >= 1000 else 5
        if self.order < 1:
            raise ConfigError(f"model.order={order}: expected 1 or more, as in `model.order=3`.")
        if not 0 < alpha < float("inf"):
            raise ConfigError(f"model.alpha={alpha}: expected a number above 0, as in `model.alpha=0.1`.")
        self.smoothing = smoothing
        self.alpha = alpha
        # For each length j three sorted buffers. A context is a number: the place of its last j - 1 tokens among the
        # contexts of length j - 1, times V, plus the token before them. An n-gram is the place of its context, times V,
        # plus its last token.
        for j in range(self.order):
            for name in ("contexts", "grams", "counts"):
                self.register_buffer(f"{name}{j}", torch.zeros(0, dtype=torch.int64))
        self.contexts0 = torch.zeros(1, dtype=torch.int64)
        self._shares: dict[tuple[int, bool, torch.device], Shares] = {}

    @property
    def context(self) -> None:
        """None: no bound."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """log P [B, T, V] of the next tokens."""
        return self.step(x, None)[0]

    def step(self, x: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """log P after `memory`, and the new memory, tokens."""
        # `order` - 1 of them: all that the next token depends on
        tokens = x if memory is None else torch.cat([memory, x], dim=1)
        ids = self._lookup(tokens)[:, :, tokens.shape[1] - x.shape[1] :].flatten(1)
        longest = torch.arange(1, tokens.shape[1] + 1, device=x.device).clamp(max=self.order - 1)
        longest = longest[tokens.shape[1] - x.shape[1] :].repeat(len(x))
        logits = torch.empty(ids.shape[1], self.vocabulary, device=x.device)
        # places with equal contexts come together, so that a chunk computes each context once
        for rows in torch.split(_group_contexts(ids), max(1, CHUNK // self.vocabulary)):
            self._fill(logits, rows, ids, longest)
        return logits.view(*x.shape, self.vocabulary), tokens[:, max(0, tokens.shape[1] - self.order + 1) :]

    def count(self, x: Tensor, y: Tensor) -> None:
        """Count windows x [B, T] with targets y [B, T]."""
        device = self.contexts0.device
        tokens, targets = x.to(device).long(), y.to(device).long().flatten()
        seen = targets >= 0  # the others are not predicted (`IGNORE_INDEX`)
        ids, moved = torch.zeros_like(targets), torch.zeros(1, dtype=torch.int64, device=device)
        for j in range(self.order):
            if j > 0:
                codes, seen = self._extend(ids, tokens, j, seen)
                kept = self._recode(f"contexts{j}", moved)
                contexts = torch.unique(torch.cat([kept, codes[seen]]))
                moved, ids = torch.searchsorted(contexts, kept), torch.searchsorted(contexts, codes)
                setattr(self, f"contexts{j}", contexts)
            self._add_grams(j, self._recode(f"grams{j}", moved), ids[seen] * self.vocabulary + targets[seen])
        self._shares = {}

    def _extend(self, ids: Tensor, tokens: Tensor, j: int, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The contexts of length j, and a mask of validity."""
        before = torch.zeros_like(tokens)
        before[:, j - 1 :] = tokens[:, : tokens.shape[1] - j + 1]
        reached = torch.arange(tokens.shape[1], device=tokens.device) >= j - 1
        return ids * self.vocabulary + before.flatten(), valid & reached.repeat(len(tokens))

    def _recode(self, name: str, moved: Tensor) -> Tensor:
        """Renumber a buffer after its shorter contexts have `moved`."""
        # the numbers stay sorted, for `moved` rises
        codes: Tensor = getattr(self, name)
        return moved[codes // self.vocabulary] * self.vocabulary + codes % self.vocabulary

    def _add_grams(self, j: int, kept: Tensor, new: Tensor) -> None:
        grams, place = torch.unique(torch.cat([kept, new]), return_inverse=True)
        weight = torch.cat([getattr(self, f"counts{j}"), torch.ones_like(new)])
        setattr(self, f"grams{j}", grams)
        setattr(self, f"counts{j}", torch.zeros_like(grams).index_add_(0, place, weight))

    def _lookup(self, tokens: Tensor) -> Tensor:
        """Places of each token's contexts [order, B, T], unseen -1."""
        ids = torch.zeros_like(tokens, dtype=torch.int64).flatten()
        found, known = [ids], torch.ones_like(ids, dtype=torch.bool)
        for j in range(1, self.order):
            contexts: Tensor = getattr(self, f"contexts{j}")
            codes, known = self._extend(ids, tokens, j, known)
            ids = torch.searchsorted(contexts, codes)
            known = known & (ids < len(contexts))
            known[known.clone()] = contexts[ids[known]] == codes[known]
            found.append(torch.where(known, ids, -1))
        return torch.stack(found).view(self.order, *tokens.shape)

    def _fill(self, logits: Tensor, rows: Tensor, ids: Tensor, longest: Tensor) -> None:
        """Write log P [·, V] into `rows` of the logits.

        Their contexts are `ids` [order, M], of the lengths `longest` [M].
        """
        # P' by the contexts so far, a row for each that differs: the frequent contexts have the most followers
        table = logits.new_full((1, self.vocabulary), 1 / self.vocabulary)
        place = torch.zeros_like(rows)
        for j in range(self.order):
            ends = longest[rows] == j
            last, goes_on = rows[ends], rows[~ends]
            if len(last):
                _write_rows(logits, last, *self._log_p(j, table, place[ends], ids[j, last]))
            rows, place = goes_on, place[~ends]
            if len(rows) and self.smoothing == "kneser_ney":
                table, place = self._mix(j, table, place, ids[j, rows])

    def _log_p(self, j: int, shorter: Tensor, place: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """log P of the longest contexts; otherwise as `_mix`."""
        # Most tokens never follow a context: their log P' is computed once for all contexts that share the
        # shorter one, and only log λ is added.
        distinct, where, parent = _unique_contexts(ids, place)
        log_p = shorter.clamp(min=TINY).log_().index_select(0, parent)
        known, row, gram, shares = self._followers(j, True, distinct)
        if len(known):
            left = log_p.new_ones(len(log_p)).index_copy_(0, known, shares.left[distinct[known]])
            log_p += left.clamp(min=TINY).log_().unsqueeze(1)
            token = self._last_tokens(j, gram)
            p = left[row] * shorter[parent[row], token] + shares.given[gram]
            log_p[row, token] = p.clamp_(min=TINY).log_()
        return log_p, where

    def _mix(self, j: int, shorter: Tensor, place: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """P' for contexts `ids` [M] of length j.

        Returns rows [·, V], and the row of each context [M]. Equal contexts share a row. `shorter` is P' for the
        contexts one shorter, and `place` [M] their rows. An unseen context, -1, keeps the row of the shorter one.
        """
        distinct, where, parent = _unique_contexts(ids, place)
        p = shorter.index_select(0, parent)
        known, row, gram, shares = self._followers(j, False, distinct)
        if len(known):
            p *= p.new_ones(len(p)).index_copy_(0, known, shares.left[distinct[known]]).unsqueeze(1)
            p.view(-1).index_add_(0, row * self.vocabulary + self._last_tokens(j, gram), shares.given[gram])
        return p, where

    def _followers(self, j: int, top: bool, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Shares]:
        """The rows of seen contexts; row, place and shares of their n-grams."""
        known = (ids >= 0).nonzero().flatten()
        if not len(known):
            return known, known, known, Shares(known, known)
        row, gram = _find_ranges(getattr(self, f"grams{j}"), ids[known] * self.vocabulary, size=self.vocabulary)
        return known, known[row], gram, self._shares_of(j, top)

    def _last_tokens(self, j: int, gram: Tensor) -> Tensor:
        """The last tokens of n-grams of length j + 1."""
        return getattr(self, f"grams{j}")[gram] % self.vocabulary  # type: ignore[no-any-return]

    def _shares_of(self, j: int, top: bool) -> Shares:
        """Shares of contexts of length j, `top` if the longest."""
        key = (j, top, self.contexts0.device)
        if key not in self._shares:
            counts = getattr(self, f"counts{j}") if top else self._continuation_counts(j)
            owner, size = getattr(self, f"grams{j}") // self.vocabulary, len(getattr(self, f"contexts{j}"))
            if self.smoothing == "additive":
                self._shares[key] = additive(counts, owner, size, mass=self.alpha * self.vocabulary)
            else:
                self._shares[key] = kneser_ney(counts, owner, size)
        return self._shares[key]

    def _continuation_counts(self, j: int) -> Tensor:
        """The number of different tokens before each n-gram."""
        longer: Tensor = getattr(self, f"grams{j + 1}")
        shorter = getattr(self, f"contexts{j + 1}")[longer // self.vocabulary] // self.vocabulary
        grams: Tensor = getattr(self, f"grams{j}")
        place = torch.searchsorted(grams, shorter * self.vocabulary + longer % self.vocabulary)
        return torch.zeros_like(grams).index_add_(0, place, torch.ones_like(place))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # the buffers have grown with the counts: take the sizes of the saved ones
        for name, own in self.named_buffers(recurse=False):
            saved = state_dict.get(prefix + name)
            if isinstance(saved, Tensor) and saved.dtype == own.dtype and saved.ndim == 1:
                setattr(self, name, own.new_zeros(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._shares = {}


def _write_rows(logits: Tensor, rows: Tensor, values: Tensor, where: Tensor) -> None:
    """Write values[where] [M, V] into `rows` [M] of the logits."""
    # logits[rows] = values[where] takes several times longer; most values have one row, and those need no copy
    one = where.new_empty(len(values)).scatter_(0, where, torch.arange(len(where), device=where.device))
    logits.index_copy_(0, rows[one], values)
    others = torch.ones_like(where, dtype=torch.bool).index_fill_(0, one, False)
    logits.index_copy_(0, rows[others], values.index_select(0, where[others]))


def _unique_contexts(ids: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The different contexts, their indices [M], their shorter ones' rows."""
    # an unseen context is its shorter one, as a negative number
    distinct, where = torch.unique(torch.where(ids >= 0, ids, -1 - place), return_inverse=True)
    return distinct, where, torch.empty_like(distinct).scatter_(0, where, place)


def _group_contexts(ids: Tensor) -> Tensor:
    """An order with equal contexts `ids` [order, M] adjacent.

    >>> _group_contexts(torch.tensor([[0, 0, 0], [7, -1, 7]]))
    tensor([1, 0, 2])
    """
    order = torch.arange(ids.shape[1], device=ids.device)
    # a radix sort: the longest first, so that the shortest, sorted last and stably, decides first
    for column in ids.flip(0)[:-1]:
        order = order[column[order].sort(stable=True).indices]
    return order


def _find_ranges(codes: Tensor, start: Tensor, *, size: int) -> tuple[Tensor, Tensor]:
    """(range, place) of sorted `codes` within ranges.

    The range i is start[i] … start[i] + size - 1.

    >>> _find_ranges(torch.tensor([0, 1, 5, 11]), torch.tensor([0, 10]), size=5)
    (tensor([0, 0, 1]), tensor([0, 1, 3]))
    """
    first = torch.searchsorted(codes, start)
    number = torch.searchsorted(codes, start + size) - first
    which = torch.repeat_interleave(torch.arange(len(start), device=codes.device), number)
    place = torch.arange(len(which), device=codes.device) + (first - number.cumsum(0) + number)[which]
    return which, place
