"""What the processes of a run decide together: when to stop, and when to save by the clock.

Each has its own signals and its own clock. They compare them every half second or so, after equally many blocks of
steps, so that all of them stop, or save, after the same step.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from dlrun.engine.plan import Plan
from dlrun.execution.ranks.world import World

EVERY = 0.5
"""Seconds between two comparisons: a Ctrl-C waits for the next one."""
GROWTH = 4
"""How many times as many blocks as before may lie between two comparisons: the first ones are slow."""


class Agreement:
    """The processes' common answers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._since, self._interval = 0, 1
        self._tic = time.perf_counter()
        self._save_wanted = self._save = self._stopped = False
        self._signal: int | None = None

    def stop(self, wanted: bool, signal: int | None) -> tuple[bool, int | None]:
        """Is it time to stop, and for which signal? Asked once a block.

        `wanted` and `signal` are this process's own.
        """
        self._since += 1
        if self._since >= self._interval:
            self._compare(wanted, signal)
        return self._stopped, self._signal

    def _compare(self, wanted: bool, signal: int | None) -> None:
        seconds = (time.perf_counter() - self._tic) / self._since
        stop, number, save, slowest = self._world.largest([wanted, signal or 0, self._save_wanted, seconds])
        self._stopped, self._signal, self._save = bool(stop), int(number) or None, bool(save)
        fitting = int(EVERY / max(slowest, 1e-6))
        self._interval = max(1, min(fitting, GROWTH * self._interval))
        self._since, self._tic, self._save_wanted = 0, time.perf_counter(), False

    def saves(self, due: bool) -> bool:
        """Have the processes agreed to save? `due`: this one's clock asks for it."""
        self._save_wanted |= due
        save, self._save = self._save, False
        return save


@dataclass(frozen=True)
class AgreedPlan(Plan):
    """A plan whose checkpoints by the clock are those that all processes have agreed on."""

    agreement: Agreement | None = None

    def saves(self, step: int, seconds: float) -> bool:
        due = super().saves(step, seconds)
        if self.checkpoint_seconds is None or self.agreement is None:
            return due
        return self.agreement.saves(due)
