"""The resumable state of a run, beside its weights."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class State:
    """Where a run stands beside its weights: all that a resumed loop has to know.

    `best_rank` orders validations: the monitored metric (negated if higher is better), then the loss,
    which decides between equal ones, since an error over few samples takes few values. `window` holds
    the losses and sample counts since the last point of the curve, so that a resumed curve is the
    uninterrupted one.
    """

    step: int = 0
    best_step: int | None = None
    best_rank: tuple[float, float] | None = None
    waited: int = 0
    train_seconds: float = 0.0
    window: list[tuple[float, int]] = field(default_factory=list)
