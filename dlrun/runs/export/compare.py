"""An exported file's answers beside the run's."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.nests.nest import Nest, map_nest
from dlrun.runs.export.formats import Ask
from dlrun.runs.export.graph import outputs, tracing

TOLERANCE = 1e-5
"""Of the largest of the run's outputs, or of 1 if they are smaller."""


class Comparison(NamedTuple):
    """The largest difference, the largest output, and whether the file takes shorter texts."""

    largest: float
    scale: float
    shorter: bool = False


def compare(ask: Ask, model: nn.Module, given: Nest, prepared: Nest, *, tokens: bool, free: bool) -> Comparison:
    """Compare a file's answers to `given` with a model's to `prepared`, all at once, one alone, and twice as many.

    Of tokens shorter windows are asked too; with `free` the file says that it takes them. Raises `UserError` if it
    differs, or cannot be asked.
    """
    found = Comparison(0.0, 0.0)
    for name, take in (("all samples", slice(None)), ("one sample", slice(1))):
        some = itemgetter(take)
        found = _differ(ask, model, map_nest(some, given), map_nest(some, prepared), found, name)
    found = _differ(ask, model, map_nest(_twice, given), map_nest(_twice, prepared), found, "twice as many samples")
    if not tokens:
        return found
    try:
        for length in _lengths(given.shape[1]):
            found = _differ(ask, model, given[:, :length], prepared[:, :length], found, f"{length} tokens")
    except UserError:
        if free:
            raise
        return found
    return found._replace(shorter=True)


def _twice(values: Tensor) -> Tensor:
    return torch.cat([values, values])


def _lengths(longest: int) -> Iterator[int]:
    yield from {1, max(1, longest // 2), max(1, longest - 1)}


def _differ(ask: Ask, model: nn.Module, given: Nest, prepared: Nest, known: Comparison, what: str) -> Comparison:
    with tracing():
        wanted = outputs(model(prepared))
        try:
            found = ask(given)
        except Exception as error:  # each runtime has its own
            raise UserError(f"The file cannot be asked for {what}: {first_line(error)}") from None
    for name, want in wanted.items():
        largest, scale = _largest(found[name], want)
        known = known._replace(largest=max(known.largest, largest), scale=max(known.scale, scale))
        if not largest <= TOLERANCE * max(1.0, scale):
            raise UserError(
                f"The file's answers to {what} differ from the run's by {largest:.2g}, of values up to {scale:.2g}; "
                f"expected at most {TOLERANCE:g} of them."
            )
    return known


def _largest(found: Tensor, want: Tensor) -> tuple[float, float]:
    """The largest difference and the largest value; infinite for another shape."""
    if found.shape != want.shape:
        return float("inf"), 0.0
    a, b = found.double(), want.double()
    # infinities have no difference
    same = (a == b) | (a.isnan() & b.isnan())
    apart = torch.where(same, 0.0, (a - b).abs()).nan_to_num(nan=float("inf"))
    finite = b[b.isfinite()]
    return float(apart.max()) if apart.numel() else 0.0, float(finite.abs().max()) if finite.numel() else 0.0


def first_line(error: Exception) -> str:
    """The first line of what a library says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
