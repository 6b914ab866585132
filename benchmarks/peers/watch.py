"""How long a step takes: notes of how many steps were done when."""

from __future__ import annotations

import resource
import time
from typing import Any

from torch import nn

SKIP = 10
"""Steps that do not count, if there are others: the first ones allocate, choose kernels, compile."""


class Watch:
    """The moments at which a number of steps were done; `every` is for those who note each step."""

    def __init__(self, every: int = 1) -> None:
        self._every = every
        self._marks: list[tuple[int, float, float, int]] = []

    def begins(self, step: int) -> None:
        """Note that a step begins, of every so many: a note costs microseconds, as a tiny step does."""
        if step % self._every == 0:
            self.at(step)

    def at(self, steps: int) -> None:
        """Note that so many steps are done."""
        self._marks.append((steps, time.perf_counter(), time.process_time(), faults()))

    def seen(self, model: nn.Module) -> Seen:
        """Return the model, each call of which begins a step."""
        return Seen(model, self)

    def each(self) -> dict[str, float]:
        """Return a step's seconds on the wall and of the CPU, and its page faults: from after the warm-up to the last.

        What a program does before its first step and after its last is not in it. Raises `ValueError` if fewer
        than two steps were noted.
        """
        if len(self._marks) < 2:
            raise ValueError(f"{len(self._marks)} steps were noted, expected two or more")
        late = [mark for mark in self._marks if mark[0] >= SKIP]
        first, last = (late if len(late) > 1 else self._marks)[0], self._marks[-1]
        each = [(b - a) / (last[0] - first[0]) for a, b in zip(first[1:], last[1:], strict=True)]
        return dict(zip(("wall", "cpu", "faults"), each, strict=True))


def faults() -> int:
    """Return how many pages of memory this process has had to ask the system for."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


class Seen(nn.Module):
    """A model whose calls are noted."""

    def __init__(self, model: nn.Module, watch: Watch) -> None:
        super().__init__()
        self.model = model
        self._watch = watch
        self._calls = 0

    def forward(self, *arguments: Any) -> Any:
        """Return what the model returns."""
        self._watch.begins(self._calls)
        self._calls += 1
        return self.model(*arguments)
