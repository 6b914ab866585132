"""The loop's own measurements: the losses since the last point, and the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dlrun.engine.state import State
from dlrun.errors import NonFinite
from dlrun.types import IGNORE_INDEX, Batch, Update


class LossMeter:
    """The losses since the last point of the curves."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._losses: list[Tensor] = []
        self._counts: list[int | Tensor] = []

    def add(self, update: Update, batch: Batch) -> None:
        # stays on the device until a point or a checkpoint is due
        self._losses.append(update.loss.detach())
        if update.weight is None:
            self._counts.append(batch.x.shape[0] if batch.plain else batch.size)
        else:
            self._counts.append(update.weight)

    def keep(self) -> None:
        """Read the losses into the state, for the checkpoint."""
        if self._losses:
            values = torch.stack(self._losses).tolist()  # one read for all
            self._state.add(values, read_counts(self._counts))
            self._losses, self._counts = [], []

    def check(self) -> None:
        """Raise `NonFinite`, with the step, for NaN or infinity."""
        self.keep()
        window = self._state.window
        for position, (loss, count) in enumerate(window):
            if not -float("inf") < loss < float("inf"):
                step = self._state.step - len(window) + position + 1  # the window ends with this step
                if not count:
                    raise NonFinite(
                        f"The loss of step {step} is {loss}: no target of its batch counts, all are IGNORE_INDEX "
                        f"({IGNORE_INDEX}), so their mean is 0/0. Leave samples without any target out of the training "
                        "data, or type a larger trainer.batch_size."
                    )
                raise NonFinite(
                    f"The loss of step {step} is {loss}. A smaller optimizer.lr, a warm-up (schedule.warmup=0.1) "
                    f"or trainer.clip=1 often helps.",
                    step=step,
                    loss=loss,
                )

    def mean(self) -> dict[str, float]:
        self.check()
        window = self._state.window
        total, count = sum(loss * count for loss, count in window), sum(count for _, count in window)
        self._state.window = []
        # of samples that all have the weight 0 there is no mean
        return {"train/loss": total / count} if count else {}


def read_counts(counts: Sequence[int | Tensor]) -> Sequence[Any]:
    """The samples or weights of some steps as numbers, those of a stack as lists."""
    weights = [each for each in counts if isinstance(each, Tensor)]
    # one read for all, as of the losses
    read = iter(torch.stack(weights).tolist() if weights else ())
    return [next(read) if isinstance(each, Tensor) else each for each in counts]


class Clock:
    """The time of training itself, without evaluation and saving."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._tic = self._saved = time.perf_counter()
        self._point = (state.step, state.train_seconds)

    def stop(self) -> None:
        """Add the time since the last call to `train_seconds`."""
        now = time.perf_counter()
        self._state.train_seconds += now - self._tic
        self._tic = now

    def throughput(self, seen: Callable[[int], int]) -> dict[str, float]:
        """The samples a second since the last point.

        `seen` maps a number of steps to their samples.
        """
        self.stop()
        step, seconds = self._point
        self._point = (self._state.step, self._state.train_seconds)
        samples = seen(self._state.step) - seen(step)
        elapsed = self._state.train_seconds - seconds
        return {"throughput/samples_per_second": samples / max(elapsed, 1e-9)}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time within the context."""
        self.stop()
        yield
        self._tic = time.perf_counter()

    def since_save(self) -> float:
        return time.perf_counter() - self._saved

    def saved(self) -> None:
        self._saved = time.perf_counter()
