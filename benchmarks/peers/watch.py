"""The time of a step, from marks of (steps done, time)."""

from __future__ import annotations

import resource
import time
from typing import Any

from torch import nn

# The first steps allocate, choose kernels, compile: they do not count, if there are others.
SKIP = 10


class Watch:
    """Marks of time; programs that mark each step write only every `every`th."""

    def __init__(self, every: int = 1) -> None:
        self._every = every
        self._marks: list[tuple[int, float, float, int]] = []

    def begins(self, step: int) -> None:
        """Mark that a step begins: only every so many, since a mark costs microseconds, as a tiny step does."""
        if step % self._every == 0:
            self.at(step)

    def at(self, steps: int) -> None:
        """Mark that `steps` steps are done."""
        self._marks.append((steps, time.perf_counter(), time.process_time(), faults()))

    def seen(self, model: nn.Module) -> Seen:
        """The model, each call of which marks a step."""
        return Seen(model, self)

    def each(self) -> dict[str, float]:
        """Wall seconds, CPU seconds and page faults of a step, from after the warm-up to the last mark.

        Raises `ValueError` for fewer than two marks.
        """
        if len(self._marks) < 2:
            raise ValueError(f"{len(self._marks)} steps were noted, expected two or more")
        late = [mark for mark in self._marks if mark[0] >= SKIP]
        first, last = (late if len(late) > 1 else self._marks)[0], self._marks[-1]
        each = [(b - a) / (last[0] - first[0]) for a, b in zip(first[1:], last[1:], strict=True)]
        return dict(zip(("wall", "cpu", "faults"), each, strict=True))


def faults() -> int:
    """The minor page faults of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


class Seen(nn.Module):
    """A model whose calls are marked."""

    def __init__(self, model: nn.Module, watch: Watch) -> None:
        super().__init__()
        self.model = model
        self._watch = watch
        self._calls = 0

    def forward(self, *arguments: Any) -> Any:
        self._watch.begins(self._calls)
        self._calls += 1
        return self.model(*arguments)
