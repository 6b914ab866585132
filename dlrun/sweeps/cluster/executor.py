"""A scheduler of other machines, as the runner of a sweep's jobs sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class Submitted(Protocol):
    """A task that a scheduler has been given."""

    @property
    def id(self) -> str:
        """The scheduler's name for it."""

    def lives(self) -> bool:
        """True while it waits or runs. A task that runs again after a preemption lives all the time."""

    def why(self) -> str:
        """One line on its end, for a task that has left no answer."""

    def withdraw(self) -> bool:
        """Take it back if it still waits; False if it runs, or if nobody can say."""

    def kill(self) -> None:
        """End it at once."""


class Executor(Protocol):
    """A scheduler."""

    @property
    def name(self) -> str:
        """The launcher's: `slurm`."""

    @property
    def survives(self) -> bool:
        """Whether tasks go on when the process that has submitted them ends."""

    @property
    def queues(self) -> bool:
        """Whether tasks wait until there is room for them; else all that are submitted begin at once."""

    @property
    def width(self) -> int:
        """The tasks that wait or run at once, where they do not queue or a search decides them as it goes."""

    def submit(self, calls: Sequence[Callable[[], None]]) -> Sequence[Submitted]:
        """Submit calls; raises `UserError` if the scheduler refuses them."""

    def find(self, id: str) -> Submitted | None:
        """A task that an earlier process has submitted; None if it is over."""
