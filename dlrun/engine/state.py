"""The resumable state of a run, beside its weights."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class State:
    """The progress of a run.

    `best_rank` orders validations: the monitored metric (negated if higher is better), then the loss. The loss
    decides between equal metrics: an error over few samples takes few values. `window` holds the losses and
    sample counts since the last point of the curve, so that a resumed curve equals an uninterrupted one.
    """

    step: int = 0
    best_step: int | None = None
    best_rank: tuple[float, float] | None = None
    waited: int = 0
    train_seconds: float = 0.0
    window: list[tuple[float, int]] = field(default_factory=list)
