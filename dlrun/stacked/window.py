"""The losses of R runs since the last point; a run whose loss is no number leaves, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dlrun.engine.meters import Window
from dlrun.engine.state import State
from dlrun.errors import NonFinite
from dlrun.types import Batch


class StackedWindow:
    """The losses [R] of the steps since the last point, left on the device until the point is due.

    `states` are those of the runs that train, `left` is told of a run, by its place, whose loss was not finite.
    Both are asked at each point, for runs leave.
    """

    def __init__(self, states: Callable[[], Sequence[State]], left: Callable[[int, NonFinite], None]) -> None:
        self._states = states
        self._left = left
        self._losses: list[Tensor] = []
        self._counts: list[int] = []

    def add(self, loss: Tensor, batch: Batch) -> None:
        """Note the losses of a step; nothing is read."""
        self._losses.append(loss.detach())
        self._counts.append(batch.x.shape[1])

    def check(self) -> None:
        """Read the losses into the runs' states; a run with one that is not finite leaves with its `NonFinite`."""
        if self._losses:
            rows = torch.stack(self._losses, dim=1)
            finite = rows.isfinite().all(1).tolist()
            for place, (state, row) in enumerate(zip(self._states(), rows.tolist(), strict=True)):
                state.window += zip(row, self._counts, strict=True)
                if not finite[place]:
                    self._check(place, state)
            self._losses, self._counts = [], []

    def mean(self) -> dict[str, list[float]]:
        """Return each run's mean over the samples since the last point, and begin anew."""
        self.check()
        means = []
        for state in self._states():
            total = sum(loss * count for loss, count in state.window) / sum(count for _, count in state.window)
            means.append(total)
            state.window = []
        return {"train/loss": means}

    def _check(self, place: int, state: State) -> None:
        try:
            Window(state).check()
        except NonFinite as error:
            self._left(place, error)
