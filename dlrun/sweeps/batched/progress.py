"""The progress of a stack on the screen: its step, the runs left, their losses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import isfinite
from statistics import median
from typing import Any, Protocol

from dlrun.engine.protocols import Recorder
from dlrun.stacked.training import StackedTraining
from dlrun.storage.checkpoint import BestWeights, Checkpoint
from dlrun.terminal import output
from dlrun.terminal.format import duration

BETWEEN = 0.1
"""Seconds between two live lines."""


class Show(Protocol):
    """Shows the progress of running jobs; logs it if `lasting`."""

    def __call__(self, running: int, doing: str, *, lasting: bool = False) -> None: ...


class MonitoredRecorder:
    """A stack's recorder, with its progress on the screen.

    A live line has the median loss and the best metric; one that lasts comes after 30 s or an epoch, whichever is
    longer.
    """

    def __init__(self, recorder: Recorder[Any, Any, Any], stacked: StackedTraining, show: Show) -> None:
        self._recorder = recorder
        self._stacked = stacked
        self._show = show
        self._losses: Sequence[float] = ()
        self._start = self._lasting_step = stacked.state.step
        self._begun = self._shown = self._lasting = time.monotonic()

    def point(self, step: int, epoch: float, values: dict[str, Any]) -> None:
        self._recorder.point(step, epoch, values)
        # a validation has none: the last ones stay on the screen
        self._losses = values.get("train/loss", self._losses)
        now = time.monotonic()
        lasting = not self._unfinished(step, values) and self._lasts(step, now)
        if lasting or now - self._shown > BETWEEN:
            self._show(self._running(), self._doing(step, epoch, now), lasting=lasting)
            self._shown = now
        if lasting:
            self._lasting, self._lasting_step = now, step

    def save(self, checkpoint: Sequence[Checkpoint | None], best: Sequence[BestWeights | None]) -> None:
        self._recorder.save(checkpoint, best)

    def _unfinished(self, step: int, values: dict[str, Any]) -> bool:
        # its training loss comes first, its validation after
        return "lr" in values and self._stacked.validation is not None and self._stacked.plan.evaluates(step)

    def _lasts(self, step: int, now: float) -> bool:
        an_epoch = step - self._lasting_step >= self._stacked.plan.per_epoch
        return an_epoch and now - self._lasting > output.HEARTBEAT

    def _running(self) -> int:
        return len({*self._stacked.active} - {*self._stacked.errors})

    def _doing(self, step: int, epoch: float, now: float) -> str:
        steps = self._stacked.plan.steps
        left = (steps - step) * (now - self._begun) / max(1, step - self._start)
        # a narrow terminal cuts the metrics, not the time
        words = [f"epoch {epoch:.4g}", f"step {step}/{steps}", f"{duration(left)} left"]
        losses = [loss for loss in self._losses if isfinite(loss)]
        words += [f"median train/loss {median(losses):.4g}"] if losses else []
        return "  ".join([*words, *self._best()])

    def _best(self) -> list[str]:
        first = self._stacked.members[0]  # the monitor is the same for all jobs of a sweep
        found = [value for best in self._stacked.best if best and isfinite(value := best.metrics[first.monitor])]
        choose = max if first.higher_is_better else min
        return [f"best {first.monitor} {choose(found):.4g}"] if found else []
