"""Whether two values are of one quantity: the same unit, the same direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlrun.types import Quantity

PREFERRED = ("loss", "nll", "bits_per_byte", "mse", "error")
"""The metrics to compare by, the finer ones first."""


def same_quantity(*groups: Sequence[Mapping[str, Quantity]]) -> str | None:
    """A metric with one known direction in all runs and one unit within each group of them.

    The first of `PREFERRED` if it is among them.

    >>> nll, loss = {"higher_is_better": False, "unit": "nll"}, {"higher_is_better": False, "unit": "mine(a=1)"}
    >>> one, other = {"loss": loss, "nll": nll}, {"loss": {**loss, "unit": "mine(a=2)"}, "nll": nll}
    >>> same_quantity([one, other]), same_quantity([one], [other])
    ('nll', 'loss')
    """
    first = groups[0][0]
    same = [
        name
        for name, quantity in first.items()
        if (direction := quantity["higher_is_better"]) is not None
        and all(run.get(name) == runs[0].get(name) for runs in groups for run in runs)
        and all(name in runs[0] and runs[0][name]["higher_is_better"] == direction for runs in groups)
    ]
    return next((name for name in PREFERRED if name in same), same[0] if same else None)
