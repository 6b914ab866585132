"""What a metric's values can be: their bounds, and the steps of one that counts samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

FRACTIONS = ("dlrun.metrics.accuracy", "dlrun.metrics.error", "dlrun.metrics.top_k")
NEVER_NEGATIVE = (
    "dlrun.metrics.mse",
    "dlrun.metrics.nll",
    "dlrun.losses.cross_entropy.cross_entropy",
    "dlrun.losses.mse.mse",
    "bits a byte",
    *(
        f"torch.nn.{name}Loss"
        for name in ("CrossEntropy", "MSE", "L1", "SmoothL1", "Huber", "BCE", "BCEWithLogits", "MultiMargin")
    ),
)
ON_GRID = 1e-6
"""The largest distance from a multiple of 1/n, as a part of it, of a share of n samples."""


@dataclass(frozen=True)
class ValueRange:
    """The bounds of a metric, and the number of samples that it may count."""

    least: float = -math.inf
    most: float = math.inf
    samples: int | None = None

    def step(self, values: Sequence[float]) -> float:
        """The smallest change of a share of samples; 0 for values that are no such shares.

        >>> ValueRange(samples=200).step([0.985, 0.97]), ValueRange(samples=200).step([0.9853, 0.97])
        (0.005, 0.0)
        """
        if not self.samples or not all(0 <= value <= 1 for value in values):
            return 0.0
        counts = [value * self.samples for value in values]
        return 1 / self.samples if all(abs(count - round(count)) <= ON_GRID * self.samples for count in counts) else 0.0

    def clip(self, low: float, high: float) -> tuple[float, float]:
        """The part of an interval that is possible."""
        return max(low, self.least), min(high, self.most)


ANY = ValueRange()


def value_range(metric: str, units: Iterable[str | None], samples: int | None = None) -> ValueRange:
    """The range of a metric of these units, over so many samples.

    A unit that is not known leaves the metric's name to tell.

    >>> value_range("val/acc", ["dlrun.metrics.accuracy()"], 200)
    ValueRange(least=0.0, most=1.0, samples=200)
    >>> value_range("val/loss", ["mine.elbo()"]).least
    -inf
    """
    name = metric.partition("/")[2] or metric
    found = [_bounds(unit, name) for unit in {*units}] or [_bounds(None, name)]
    return ValueRange(min(least for least, _ in found), max(most for _, most in found), samples)


def _bounds(unit: str | None, name: str) -> tuple[float, float]:
    kind = unit.partition("(")[0] if unit else None
    if kind in FRACTIONS or (kind is None and name in ("accuracy", "error")):
        return 0.0, 1.0
    if name == "perplexity" and (unit is None or unit.startswith("perplexity")):
        return 1.0, math.inf
    # losses of before 0.2 have no unit; those of dlrun are never negative
    if kind in NEVER_NEGATIVE or (kind is None and name in ("loss", "nll", "mse", "bits_per_byte")):
        return 0.0, math.inf
    return -math.inf, math.inf
