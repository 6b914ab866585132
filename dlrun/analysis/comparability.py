"""Whether two values are of one quantity: the same unit, the same direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlrun.types import Quantity

PREFERRED = ("loss", "nll", "bits_per_byte", "mse", "error")
"""The metrics to compare by, the finer ones first."""


def same_quantity(runs: Sequence[Mapping[str, Quantity]]) -> str | None:
    """A metric with one unit and a known direction in all runs, the first of `PREFERRED` if it is among them.

    >>> nll, loss = {"higher_is_better": False, "unit": "nll"}, {"higher_is_better": False, "unit": "mine(a=1)"}
    >>> same_quantity([{"loss": loss, "nll": nll}, {"loss": {**loss, "unit": "mine(a=2)"}, "nll": nll}])
    'nll'
    """
    first, *others = runs
    same = [
        name
        for name, quantity in first.items()
        if quantity["higher_is_better"] is not None and all(other.get(name) == quantity for other in others)
    ]
    return next((name for name in PREFERRED if name in same), same[0] if same else None)
