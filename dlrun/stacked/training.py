"""Many runs trained as one program, by the same loop as one.

    why_not(trainings)                                   # None if these runs can be stacked
    stacked = StackedTraining(trainings, states)         # from their weights, optimizers and states as they are now
    loop.train(stacked, stacked.state, StackedRecorder(stacked, recorders), stop)
    stacked.states[i], stacked.errors[i]                 # the state of run i, the `NonFinite` that ended it

A run is a `Training`, as `runs.build` makes it of a configuration: fresh, or restored from a checkpoint. All must be
at the same step. After `train` each `Training` is as if it had been trained alone: its last weights, optimizer,
average and `best`. Its recorder was given checkpoints that `loop.restore` takes. So a stacked run may go on alone,
and the other way round.

A run whose loss is not finite leaves with its error, a run out of patience with its last weights. The others go on.
The time of the stack is shared out evenly into the runs' `train_seconds`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from dlrun.engine.batches import Batches
from dlrun.engine.ema import Average
from dlrun.engine.loop import Training, use_average
from dlrun.engine.own.state import OwnState
from dlrun.engine.plan import Plan
from dlrun.engine.protocols import Rate, Recorder, Stepper, TotalsFn
from dlrun.engine.state import State
from dlrun.engine.steppers import EagerStepper, measuring
from dlrun.errors import NonFinite
from dlrun.stacked.batches import StackedBatches
from dlrun.stacked.descent import StackedDescent
from dlrun.stacked.evaluation import StackedSplits, evaluate
from dlrun.stacked.key import function_key
from dlrun.stacked.loss_meter import StackedLossMeter
from dlrun.stacked.objective import StackedObjective
from dlrun.stacked.weights import keep_rows
from dlrun.storage.checkpoint import BestWeights, Checkpoint
from dlrun.types import IGNORE_INDEX, Batch, Schedule, Split, Update


class StackedTraining:
    """Runs as one program, for `loop.train`.

    `members` are all runs; outside, a run is known by its number there. `active` has the numbers of the runs in the
    tensors, one a row. A run that leaves keeps its row until the next batch is drawn. `errors` has the `NonFinite`
    that ended a run.
    """

    def __init__(self, members: Sequence[Training], states: Sequence[State] | None = None) -> None:
        self.members = list(members)
        self.states = list(states or (State() for _ in members))
        self.errors: dict[int, NonFinite] = {}
        self.active = list(range(len(self.members)))
        # `why_not` has seen to it that all are at one step
        self.state = State(step=max(state.step for state in self.states))
        first = self.members[0]
        self.plan: Plan = first.plan
        self.seed, self.device = first.seed, first.device
        self.objective = StackedObjective([member.objective for member in self.members], ignores=_ignores(self.members))
        self.optimizer = StackedDescent([member.optimizer for member in self.members], self.objective)  # type: ignore[misc]
        self.batches = StackedBatches(_batches(self.members), self._drop_left)
        self.average = self._average()
        # runs with a state of their own train alone
        self.own: OwnState | None = None
        self.validation: Split | None = first.validation
        self.log_parameters = False  # runs that do train alone
        # one run that asks for compiled steps has all compiled
        self._stepped = next((m for m in self.members if m.make_stepper is not EagerStepper), first)
        self._splits = _stack_splits([member.validation for member in self.members], self.device)
        self._totals_fn = self._make_totals_fn()
        self._schedules = _unique([member.schedule for member in self.members])
        # resumed runs may be out of patience already
        self._left = {i for i, state in enumerate(self.states) if self.members[i].over(state)}
        self._checkpoints: list[Checkpoint | None] = [None for _ in self.members]
        self._seconds = 0.0
        self._loss_meter: StackedLossMeter | None = None

    @property
    def best(self) -> list[BestWeights | None]:
        return [member.best for member in self.members]

    def schedule(self, step: int, steps: int) -> float | Tensor:
        """The factor of the learning rate, [R] unless shared."""
        factors = [schedule(step, steps) for schedule, _ in self._schedules]
        if len(factors) == 1:
            return factors[0]
        by_run = {run: factor for factor, (_, runs) in zip(factors, self._schedules, strict=True) for run in runs}
        lr = self.optimizer.lr
        return torch.tensor([by_run[i] for i in self.active], dtype=lr.dtype, device=lr.device)

    def step(self, batch: Batch, rate: Rate) -> Update:
        return self.optimizer.step(self.objective, batch, rate)  # type: ignore[arg-type]  # always a tensor: lr is one

    def rate(self, step: int) -> Tensor:
        return self.optimizer.lr * self.schedule(step, self.plan.steps)

    def stepper(self) -> Stepper:
        return measuring(self._stepped.make_stepper(self), self)

    def loss_meter(self, state: State) -> StackedLossMeter:
        self._loss_meter = StackedLossMeter(lambda: self._advance(state), self._fail)
        return self._loss_meter

    def validate(self, state: State) -> dict[str, list[float]]:
        assert self._splits is not None
        first, states = self.members[0], self._advance(state)
        with use_average(self.average):
            found = evaluate(
                self.objective,
                first.metrics,
                self._splits,
                batch_size=first.evaluation_batch_size,
                totals_fn=self._totals_fn,
            )
            values = [{f"val/{name}": value for name, value in each.items()} for each in found]
            for row, i in enumerate(self.active):
                if i not in self.errors and self.members[i].ahead(states[row], values[row]):
                    self.members[i].best = BestWeights(states[row].step, values[row], self._state_dict(i, row))
        self._left |= {i for i in self.active if self.members[i].over(self.states[i])}
        return {name: [each[name] for each in values] for name in values[0]}

    def over(self, state: State) -> bool:
        """Have all runs left?"""
        return self._left >= {*self.active}

    def checkpoint(self, state: State) -> list[Checkpoint | None]:
        """Each member's checkpoint; None for a failed run."""
        self._advance(state)
        for row, i in enumerate(self.active):
            self._write_back(i, row)
        return list(self._checkpoints)

    def _advance(self, state: State) -> list[State]:
        """Bring the active runs' states to this step."""
        states = [self.states[i] for i in self.active]
        # called at every point, validation and checkpoint: each call shares out the time since the last
        share, self._seconds = (state.train_seconds - self._seconds) / len(states), state.train_seconds
        for each in states:
            each.step = state.step
            each.train_seconds += share
        return states

    def _fail(self, row: int, error: NonFinite) -> None:
        self.errors[self.active[row]] = error
        self._left.add(self.active[row])

    def _state_dict(self, i: int, row: int) -> dict[str, Tensor]:
        """A copy of a run's weights, by name."""
        model, params = self.members[i].objective.model, self.members[i].objective.params
        own = self.objective.layout.row(self.objective.weights, row, params)
        values = {id(p): value.clone() for p, value in zip(params, own, strict=True)}
        # tied weights have several names
        return {name: values[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}

    def _write_back(self, i: int, row: int) -> None:
        """Copy a row into the run's own `Training`."""
        member, layout = self.members[i], self.objective.layout
        params = member.objective.params
        with torch.no_grad():
            # in place, for the model and the optimizer hold these very tensors
            for p, value in zip(params, layout.row(self.objective.weights, row, params), strict=True):
                p.copy_(value)
        member.optimizer.load_state_dict(self.optimizer.rule.state_of(row, params))
        if member.average and self.average:
            member.average.weights = [w.clone() for w in layout.row(self.average.weights, row, params)]
        self._checkpoints[i] = None if i in self.errors else member.checkpoint(self.states[i])

    def _drop_left(self) -> None:
        """Drop the rows of finished runs, unless all are."""
        if self._left & {*self.active} and self._loss_meter is not None:
            # read the losses while they have a row for each; runs found to have diverged leave now too, for the
            # batches of one block must be of the same runs
            self._loss_meter.check()
        leaving = self._left & {*self.active}
        # if all leave, the loop ends before another step (`over`); an empty stack has no batches
        if not leaving or leaving == {*self.active}:
            return
        staying = [row for row, i in enumerate(self.active) if i not in leaving]
        # before the rows move
        for row, i in enumerate(self.active):
            if i in leaving:
                self._write_back(i, row)
        self.active = [self.active[row] for row in staying]
        rows = torch.tensor(staying, device=self.device)
        average = keep_rows(self.average.weights, rows) if self.average else None
        for part in (self.objective, self.optimizer, self.batches, self._splits):
            if part is not None:
                part.keep(rows)
        if self.average and average is not None:
            self.average = Average(self.objective.params, self.average.decay)
            self.average.weights = average
        self._totals_fn = self._make_totals_fn()  # a recorded graph reads the old tensors

    def _make_totals_fn(self) -> TotalsFn:
        totals_fn, wrap = partial(self.objective.totals, self.members[0].metrics), self._stepped.wrap_totals
        return wrap(totals_fn) if wrap else totals_fn

    def _average(self) -> Average | None:
        averages = [member.average for member in self.members]
        if averages[0] is None:
            return None
        average = Average(self.objective.params, averages[0].decay)
        average.weights = self.objective.layout.stack([each.weights for each in averages if each])
        return average


class StackedRecorder:
    """Hands points and checkpoints to each run's recorder."""

    def __init__(
        self, training: StackedTraining, recorders: Sequence[Recorder[float, Checkpoint, BestWeights | None]]
    ) -> None:
        self._training = training
        self._recorders = recorders
        self._saved_last: set[int] = set()

    def point(self, step: int, epoch: float, values: dict[str, Any]) -> None:
        """Record a point of every run."""
        # a list or a tensor has a value a row, a number is for all runs
        lists = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()}
        for row, i in enumerate(self._training.active):
            if i not in self._training.errors:
                own = {name: value[row] if isinstance(value, list) else value for name, value in lists.items()}
                self._recorders[i].point(step, epoch, own)

    def save(self, checkpoint: Sequence[Checkpoint | None], best: Sequence[BestWeights | None]) -> None:
        """Save each run's checkpoint, once after it has left."""
        for i, own in enumerate(checkpoint):
            if own is None or i in self._saved_last:
                continue
            self._recorders[i].save(own, best[i])
            if i not in self._training.active:
                self._saved_last.add(i)


def _stack_splits(splits: Sequence[Split | None], device: torch.device) -> StackedSplits | None:
    given = [split for split in splits if split is not None]
    return StackedSplits(given, device) if given else None


def _batches(members: Sequence[Training]) -> list[Batches]:
    """Their batches, which are of samples by number: `why_not` stacks no streams."""
    return [cast("Batches", member.batches) for member in members]


def _ignores(members: Sequence[Training]) -> bool:
    """Has any sample a target that does not count?"""
    targets = [getattr(member.batches.split, "y", None) for member in members]
    # data sets that runs share are read once
    unique = {id(y): y for y in targets}.values()
    return any(not isinstance(y, Tensor) or bool((y == IGNORE_INDEX).any()) for y in unique)


def _unique(schedules: Sequence[Schedule]) -> list[tuple[Schedule, list[int]]]:
    """The different schedules, each with the numbers of its runs."""
    found: dict[Hashable, tuple[Schedule, list[int]]] = {}
    for i, schedule in enumerate(schedules):
        found.setdefault(function_key(schedule), (schedule, []))[1].append(i)
    return list(found.values())
