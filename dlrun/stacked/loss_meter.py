"""The losses of R runs since the last point of the curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dlrun.engine.meters import LossMeter, read_counts
from dlrun.engine.state import State
from dlrun.errors import NonFinite
from dlrun.types import Batch, Update


class StackedLossMeter:
    """Collects the losses [R] of each step.

    `states` gives the states of the runs in the tensors, a row each; it is called anew each time, for runs leave.
    `on_error` is called with the row of a run whose loss is not finite.
    """

    def __init__(self, states: Callable[[], Sequence[State]], on_error: Callable[[int, NonFinite], None]) -> None:
        self._states = states
        self._on_error = on_error
        self._losses: list[Tensor] = []
        self._counts: list[int | Tensor] = []

    def add(self, update: Update, batch: Batch) -> None:
        # stays on the device until a point or a checkpoint is due
        self._losses.append(update.loss.detach())
        # [R, B, …]: the axis of runs comes first
        self._counts.append(batch.x.shape[1] if update.weight is None else update.weight)

    def check(self) -> None:
        """Read the losses; report NaN and infinity."""
        if self._losses:
            losses = torch.stack(self._losses, dim=1)
            finite = losses.isfinite().all(1).tolist()
            counts = read_counts(self._counts)
            for row, (state, own) in enumerate(zip(self._states(), losses.tolist(), strict=True)):
                state.add(own, [each[row] if isinstance(each, list) else each for each in counts])
                if not finite[row]:
                    self._report(row, state)
            self._losses, self._counts = [], []

    def mean(self) -> dict[str, list[float]]:
        self.check()
        means = []
        for state in self._states():
            total = sum(loss * count for loss, count in state.window) / sum(count for _, count in state.window)
            means.append(total)
            state.window = []
        return {"train/loss": means}

    def _report(self, row: int, state: State) -> None:
        try:
            LossMeter(state).check()  # raises the error of a run alone, with its step
        except NonFinite as error:
            self._on_error(row, error)
