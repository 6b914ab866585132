"""How the loop gets from one step to the next: one by one, or a block of them through a compiled program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from dlrun.randomness import STEP, key, seed_default
from dlrun.types import Batch, Update

if TYPE_CHECKING:
    from dlrun.engine.loop import Trained


class Stepping(Protocol):
    """What takes the steps of a run, a block of them at a time."""

    def start(self, step: int) -> Iterator[Sequence[Batch]]:
        """Yield the batches of the blocks from `step` on, without end."""

    def take(self, step: int, block: Sequence[Batch]) -> list[Update]:
        """Take a step for each batch of a block, the first of them after `step` steps."""


class Eager:
    """Every step by itself, as PyTorch's operators are called."""

    def __init__(self, run: Trained) -> None:
        self._run = run

    def start(self, step: int) -> Iterator[Sequence[Batch]]:
        """Yield the batches one by one."""
        return ((batch,) for batch in self._run.batches.start(step))

    def take(self, step: int, block: Sequence[Batch]) -> list[Update]:
        """Take a step for each batch."""
        return [self._step(step + i, batch) for i, batch in enumerate(block)]

    def _step(self, step: int, batch: Batch) -> Update:
        run = self._run
        # dropout and the like draw from a generator that each step sets anew: nothing of it to save
        seed_default(run.device, key(run.seed, STEP, step))
        update: Update = run.optimizer.step(run.objective, batch, rate(run, step))
        if run.average:
            run.average.update(step + 1)
        return update


class Renewed:
    """Steps by what `make` returns for a run's tensors, and where these are others by what it returns for those.

    So it is when runs have left an ensemble. In between steps are taken one by one, as many as making it costs: however
    often runs leave, no more is spent on it than on steps.
    """

    def __init__(self, run: Trained, made: Stepping, make: Callable[[Trained], Stepping], *, after: int) -> None:
        self._run, self._stepping, self._make, self._after = run, made, make, after
        self._params = list(run.objective.params)
        self._due: int | None = None

    def start(self, step: int) -> Iterator[Sequence[Batch]]:
        """Yield the batches of the blocks from `step` on."""
        return self._stepping.start(step)

    def take(self, step: int, block: Sequence[Batch]) -> list[Update]:
        """Take a step for each batch of a block."""
        params = list(self._run.objective.params)
        if any(now is not before for now, before in zip(params, self._params, strict=True)):
            self._params, self._due, self._stepping = params, step + self._after, Eager(self._run)
        if self._due is not None and step >= self._due:
            self._due, self._stepping = None, self._make(self._run)
        return self._stepping.take(step, block)


def rate(run: Trained, step: int) -> Any:
    """Return the learning rate after `step` steps; of an ensemble one for each member."""
    return run.optimizer.lr * run.schedule(step, run.plan.steps)


def blocks(run: Trained, step: int, most: int) -> Iterator[Sequence[Batch]]:
    """Yield the batches from `step` on in the plan's blocks of at most `most` steps."""
    batches = run.batches.start(step)
    while True:
        block = list(islice(batches, run.plan.block(step, most)))
        yield block
        step += len(block)
