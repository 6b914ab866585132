"""The steppers of plain PyTorch: one by one, made again for new tensors, watched in the first steps."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import nn

from dlrun.engine.failures.memory import Memory, TooLarge
from dlrun.engine.objective import Objective
from dlrun.engine.own.state import OwnState
from dlrun.engine.protocols import MakeStepper, Steppable, Stepper
from dlrun.randomness import STEP, key, seed_default
from dlrun.terminal import output
from dlrun.types import Batch, Update

FILLED, ENOUGH = 2, 4
"""Steps after which caches are filled, and steps after which parts have shown what they change."""


class EagerStepper:
    """Takes every step by itself, operator by operator."""

    def __init__(self, run: Steppable) -> None:
        self._run = run

    def start(self, step: int) -> Generator[Sequence[Batch], None, None]:
        with closing(self._run.batches.start(step)) as batches:
            for batch in batches:
                yield (batch,)

    def take(self, step: int, block: Sequence[Batch]) -> list[Update]:
        run, updates = self._run, []
        for batch in block:
            # dropout and the like draw from generators that each step seeds anew: nothing of them is to save
            seed_default(run.device, value := key(run.seed, STEP, step))
            if run.own and run.own.drawn:
                run.own.seed(value)
            try:
                updates.append(run.step(batch, run.rate(step)))
            except TooLarge as error:
                updates.append(self._in_parts(step, batch, error))
            step += 1
            if run.average:
                run.average.update(step)
        return updates

    def _in_parts(self, step: int, batch: Batch, error: TooLarge) -> Update:
        """Take a step whose batch was too large in ever smaller parts."""
        run = self._run
        while True:
            error.halve(step)
            # the same draws again
            seed_default(run.device, value := key(run.seed, STEP, step))
            if run.own and run.own.drawn:
                run.own.seed(value)
            try:
                return run.step(batch, run.rate(step))
            except TooLarge as again:
                error = again


class RecompilingStepper:
    """Makes a new stepper by `make` for new parameters.

    They are new when runs have left a stack. The next `after` steps are then taken one by one. With `after` the number
    of steps that making a stepper costs, no more time goes into making them than into steps.
    """

    def __init__(self, run: Steppable, make: MakeStepper, *, first: Stepper, after: int) -> None:
        self._run, self._stepper, self._make, self._after = run, first, make, after
        self._params = list(run.objective.params)
        self._due: int | None = None

    def start(self, step: int) -> Generator[Sequence[Batch], None, None]:
        return self._stepper.start(step)

    def take(self, step: int, block: Sequence[Batch]) -> list[Update]:
        params = list(self._run.objective.params)
        # by identity: a step changes the values in place
        if any(now is not before for now, before in zip(params, self._params, strict=True)):
            self._params, self._due, self._stepper = params, step + self._after, EagerStepper(self._run)
        if self._due is not None and step >= self._due:
            self._due, self._stepper = None, self._make(self._run)
        return self._stepper.take(step, block)


class FirstSteps:
    """A stepper that looks at the parts' state in the first steps; after these it is the other stepper alone."""

    def __init__(self, stepper: Stepper, own: OwnState) -> None:
        self._stepper, self._own = stepper, own
        self._taken, self._settled = 0, False

    def start(self, step: int) -> Generator[Sequence[Batch], None, None]:
        return self._stepper.start(step)

    def take(self, step: int, block: Sequence[Batch]) -> list[Update]:
        updates = self._stepper.take(step, block)
        self._taken += len(block)
        if self._taken >= FILLED and not self._settled:
            self._own.settle()
            self._settled = True
        elif self._taken >= ENOUGH:
            for line in self._own.look_again():
                output.warn(line)
            # nothing is looked at, and nothing costs, from here on
            self.take = self._stepper.take  # type: ignore[method-assign]
        return updates


@dataclass(frozen=True)
class Thaw:
    """The steps before which parts are frozen: of each parameter (0: none), and of norms with statistics."""

    begins: Sequence[int]
    norms: Mapping[nn.Module, int]

    def apply(self, objective: Objective, step: int) -> None:
        """Have the parts of an objective train that do so after `step` steps."""
        objective.waiting = frozenset(place for place, begin in enumerate(self.begins) if begin > step)
        for norm, begin in self.norms.items():
            norm.train(begin <= step)


class ThawingStepper:
    """A stepper of steps in which frozen parts begin to train; what trains is a function of the step."""

    def __init__(self, stepper: Stepper, objective: Objective, thaw: Thaw) -> None:
        self._stepper, self._objective, self._thaw = stepper, objective, thaw
        self._changes = {0, *thaw.begins, *thaw.norms.values()}
        self._applied = False

    def start(self, step: int) -> Generator[Sequence[Batch], None, None]:
        return self._stepper.start(step)

    def take(self, step: int, block: Sequence[Batch]) -> list[Update]:
        updates: list[Update] = []
        for each, batch in enumerate(block, step):
            if each in self._changes or not self._applied:
                self._thaw.apply(self._objective, each)
                self._applied = True
            updates += self._stepper.take(each, [batch])
        return updates


class LimitedStepper:
    """A stepper of a resumed run whose batches were cut smaller from later steps on."""

    def __init__(self, stepper: Stepper, memory: Memory) -> None:
        self._stepper, self._memory = stepper, memory

    def start(self, step: int) -> Generator[Sequence[Batch], None, None]:
        return self._stepper.start(step)

    def take(self, step: int, block: Sequence[Batch]) -> list[Update]:
        updates: list[Update] = []
        for each, batch in enumerate(block, step):
            self._memory.reach(each)
            updates += self._stepper.take(each, [batch])
        return updates


class MeasuringStepper:
    """An eager stepper whose optimizer measures the norms of gradients at logging steps alone."""

    def __init__(self, stepper: EagerStepper, run: Steppable) -> None:
        self._stepper, self._plan = stepper, run.plan
        self._optimizer: Any = run.optimizer

    def start(self, step: int) -> Generator[Sequence[Batch], None, None]:
        with closing(self._stepper.start(step)) as blocks:
            try:
                yield from blocks
            finally:  # a run may be trained further
                self._optimizer.measure_norms = True

    def take(self, step: int, block: Sequence[Batch]) -> list[Update]:
        self._optimizer.measure_norms = self._plan.logs(step + len(block))
        return self._stepper.take(step, block)


def measuring(stepper: Stepper, run: Steppable) -> Stepper:
    """A stepper for a run whose optimizer may measure norms: eager steps then do so where they are logged.

    A program of a step measures them each time: it knows no step.
    """
    if isinstance(stepper, EagerStepper) and getattr(run.optimizer, "measure_norms", False):
        return MeasuringStepper(stepper, run)
    return stepper


def blocks(run: Steppable, step: int, most: int) -> Generator[Sequence[Batch], None, None]:
    """Yield blocks of at most `most` batches from `step` on."""
    with closing(run.batches.start(step)) as batches:
        while True:
            block = list(islice(batches, run.plan.block(step, most)))
            yield block
            step += len(block)
