"""The resumable state of a run, beside its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from dlrun.storage.files.record import misfit


@dataclass
class State:
    """The progress of a run.

    `best_rank` orders validations: the monitored metric (negated if higher is better), then the loss. The loss
    decides between equal metrics: an error over few samples takes few values. `window` holds the losses since the last
    point of the curve, with sample counts or weights, so that a resumed curve equals an uninterrupted one. `recent` are
    the losses that spikes are told from, and `spikes` the steps that were left out (`trainer.on_spike`).
    """

    step: int = 0
    best_step: int | None = None
    best_rank: tuple[float, float] | None = None
    waited: int = 0
    train_seconds: float = 0.0
    window: list[tuple[float, float]] = field(default_factory=list)
    recent: list[float] = field(default_factory=list)
    spikes: list[int] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> State:
        """The state in a checkpoint of any version.

        Raises `ValueError` for an odd value.
        """
        # missing fields keep their defaults, those of a later version are left out
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in content.items() if name in known}
        if found := misfit(given, cls):
            raise ValueError(found)
        state = cls(**given)
        # a checkpoint may have lists in the place of tuples
        state.window = [(loss, count) for loss, count in state.window]
        if state.best_rank is not None:
            state.best_rank = (state.best_rank[0], state.best_rank[1])
        return state

    def add(self, losses: Sequence[float], counts: Sequence[float]) -> None:
        """Append the losses of some steps, and their sample counts or weights."""
        self.window += zip(losses, counts, strict=True)
