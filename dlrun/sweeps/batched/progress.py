"""What a person sees of runs that train as one program: where they stand, how many are left, and how they do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import isfinite
from statistics import median
from typing import Any, Protocol

from dlrun.engine.protocols import Recorder
from dlrun.stacked.training import Ensemble
from dlrun.terminal import output
from dlrun.terminal.format import duration

BETWEEN = 0.1
"""Seconds between two live lines, at the least."""


class Show(Protocol):
    """Shows how many jobs run and what they are doing; what is `lasting` stays, in a log."""

    def __call__(self, running: int, doing: str, *, lasting: bool = False) -> None:
        """Show it."""


class Watched:
    """A recorder that hands everything on to another, and shows how far an ensemble is.

    A live line of the medians and the best; one that lasts after 30 s or an epoch, whichever is longer.
    """

    def __init__(self, recorder: Recorder[Any, Any], ensemble: Ensemble, show: Show) -> None:
        self._recorder = recorder
        self._ensemble = ensemble
        self._show = show
        self._losses: Sequence[float] = ()
        self._start = self._lasting_step = ensemble.state.step
        self._begun = self._shown = self._lasting = time.monotonic()

    def point(self, step: int, epoch: float, values: dict[str, Any]) -> None:
        """Hand a point on, and show where the runs stand if a person is due to see it."""
        self._recorder.point(step, epoch, values)
        self._losses = values.get("train/loss", self._losses)
        now = time.monotonic()
        lasting = not self._unfinished(step, values) and self._lasts(step, now)
        if lasting or now - self._shown > BETWEEN:
            self._show(self._running(), self._doing(step, epoch, now), lasting=lasting)
            self._shown = now
        if lasting:
            self._lasting, self._lasting_step = now, step

    def save(self, content: dict[str, Any], best: Any) -> None:
        """Hand a checkpoint on."""
        self._recorder.save(content, best)

    def _unfinished(self, step: int, values: dict[str, Any]) -> bool:
        """Return whether the validation of this step is yet to come."""
        return "lr" in values and self._ensemble.validation is not None and self._ensemble.plan.evaluates(step)

    def _lasts(self, step: int, now: float) -> bool:
        an_epoch = step - self._lasting_step >= self._ensemble.plan.per_epoch
        return an_epoch and now - self._lasting > output.HEARTBEAT

    def _running(self) -> int:
        return len({*self._ensemble.active} - {*self._ensemble.errors})

    def _doing(self, step: int, epoch: float, now: float) -> str:
        steps = self._ensemble.plan.steps
        left = (steps - step) * (now - self._begun) / max(1, step - self._start)
        # a narrow terminal cuts the metrics, not the time
        told = [f"epoch {epoch:.4g}", f"step {step}/{steps}", f"{duration(left)} left"]
        losses = [loss for loss in self._losses if isfinite(loss)]
        told += [f"median train/loss {median(losses):.4g}"] if losses else []
        return "  ".join([*told, *self._best()])

    def _best(self) -> list[str]:
        first = self._ensemble.members[0]
        found = [value for best in self._ensemble.best if best and isfinite(value := best["metrics"][first.monitor])]
        choose = max if first.higher_is_better else min
        return [f"best {first.monitor} {choose(found):.4g}"] if found else []
