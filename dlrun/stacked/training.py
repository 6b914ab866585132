"""Many runs trained as one program, by the same loop as one: `loop.train(ensemble, state, recorder)`.

    kinds = [kind(training) for training in trainings]   # equal kinds can be trained together
    why = reason(trainings)                              # None, or in words why these cannot be one program
    ensemble = Ensemble(trainings, states)               # from the weights, optimizers and states as they are now
    loop.train(ensemble, ensemble.state, Members(ensemble, recorders), stop)
    ensemble.states[i], ensemble.errors[i]               # where run i stands, the `NonFinite` that ended it

A run is what `build` makes of its configuration, a `Training`. An ensemble takes the weights, the optimizer's state
and the average of each as they are: of a fresh run, or of one that `loop.restore` has put where a checkpoint left it.
All must be at the same step (`reason` says if they are not). When `train` returns, each `Training` has what a run
alone would have: its last weights, optimizer, average and `best`; and what the recorders were given to save is what
`loop.restore` takes. So a run goes on alone that was stacked, and the other way round.

A run whose loss is not finite leaves with its error, one out of patience with its last weights; the others go on
without them. The time of an ensemble is shared out: a run's `train_seconds` are its part of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import astuple
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dlrun.engine.ema import Average
from dlrun.engine.evaluation import ContiguousWindows
from dlrun.engine.loop import Training, averaged
from dlrun.engine.plan import Plan
from dlrun.engine.protocols import Rate, Recorder, Stepper, TotalsFn
from dlrun.engine.state import State
from dlrun.engine.steppers import EagerStepper
from dlrun.errors import NonFinite
from dlrun.stacked import traits
from dlrun.stacked.batches import StackedBatches
from dlrun.stacked.descent import StackedDescent
from dlrun.stacked.evaluation import StackedSplits, evaluate
from dlrun.stacked.objective import StackedObjective
from dlrun.stacked.trial import trial
from dlrun.stacked.weights import kept
from dlrun.stacked.window import StackedWindow
from dlrun.types import Batch, Schedule, Split, Update


def kind(training: Training) -> dict[str, Hashable] | None:
    """Return what runs must have in common to be one program, by the key that decides it; None for one that never can.

    Hashable as `tuple(found.items())`; equal for runs that differ in nothing but what an ensemble has for each.
    """
    optimizer = training.optimizer
    if traits.alone(training.objective, training.batches, optimizer) or isinstance(
        training.validation, ContiguousWindows
    ):
        return None
    validation = None if training.validation is None else len(training.validation)
    return {
        **traits.of_objective(training.objective),
        **traits.of_optimizer(optimizer),  # type: ignore[arg-type]  # alone() has said so
        **traits.of_batches(training.batches),
        "the lengths and intervals of trainer": astuple(training.plan),
        "the number of validation samples": validation,
        "metrics": tuple((name, traits.function_of(metric)) for name, metric in training.metrics.items()),
        "evaluation.batch_size": training.evaluation_batch_size,
        "trainer.ema": training.average.decay if training.average else None,
    }


def reason(trainings: Sequence[Training], states: Sequence[State] | None = None) -> str | None:
    """Return why these runs cannot be trained as one program, in words; None if they can.

    The parts of the first are tried on two samples; of one run alone, that is whether there can be others beside it.
    """
    first = trainings[0]
    for training in trainings:
        why = traits.alone(training.objective, training.batches, training.optimizer)
        if why or isinstance(training.validation, ContiguousWindows):
            return why or "the validation text is walked along with a memory"
    expected = kind(first) or {}
    for training in trainings[1:]:
        for name, value in (kind(training) or {}).items():
            if value != expected[name]:
                return f"they differ in {name}{_both(expected[name], value)}"
    steps = {state.step for state in states or ()}
    if len(steps) > 1:
        return f"they stand at different steps ({', '.join(map(str, sorted(steps)))})"
    return trial(first.objective, first.metrics, first.batches.split, first.device)


class Ensemble:
    """Runs as one program, for `loop.train`.

    `members` are all, by which everything outside is numbered; `active` are the numbers of those in the tensors, and
    the place of a run in a list of values (`Members.point`) is its place there. A run that leaves stays among them
    until the next batch is drawn. `errors` has the `NonFinite` that ended a run.
    """

    def __init__(self, members: Sequence[Training], states: Sequence[State] | None = None) -> None:
        self.members = list(members)
        self.states = list(states or (State() for _ in members))
        self.errors: dict[int, NonFinite] = {}
        self.active = list(range(len(self.members)))
        self.state = State(step=max(state.step for state in self.states))
        first = self.members[0]
        self.plan: Plan = first.plan
        self.seed, self.device = first.seed, first.device
        self.objective = StackedObjective([member.objective for member in self.members])
        self.optimizer = StackedDescent([member.optimizer for member in self.members], self.objective)  # type: ignore[misc]
        self.batches = StackedBatches([member.batches for member in self.members], self._settle)
        self.average = self._average()
        self.validation: Split | None = first.validation
        # one run that asks for a program makes all of them one
        self._stepped = next((m for m in self.members if m.make_stepper is not EagerStepper), first)
        self._validation = _splits([member.validation for member in self.members], self.device)
        self._totals_fn = self._make_totals_fn()
        self._schedules = _unique([member.schedule for member in self.members])
        self._left = {i for i, state in enumerate(self.states) if self.members[i].over(state)}
        self._contents: list[dict[str, Any] | None] = [None for _ in self.members]
        self._seconds = 0.0
        self._window: StackedWindow | None = None

    @property
    def best(self) -> list[dict[str, Any] | None]:
        """Return the weights and metrics of each run's best validation so far."""
        return [member.best for member in self.members]

    def schedule(self, step: int, steps: int) -> float | Tensor:
        """Return the factor of the rate: one for all runs, or one for each that trains, [R]."""
        factors = [schedule(step, steps) for schedule, _ in self._schedules]
        if len(factors) == 1:
            return factors[0]
        by_run = {run: factor for factor, (_, runs) in zip(factors, self._schedules, strict=True) for run in runs}
        lr = self.optimizer.lr
        return torch.tensor([by_run[i] for i in self.active], dtype=lr.dtype, device=lr.device)

    def step(self, batch: Batch, rate: Rate) -> Update:
        """Take one step of every run."""
        return self.optimizer.step(self.objective, batch, rate)  # type: ignore[arg-type]  # always a tensor: lr is one

    def rate(self, step: int) -> Tensor:
        """The learning rates after `step` steps, [R]."""
        return self.optimizer.lr * self.schedule(step, self.plan.steps)

    def stepper(self) -> Stepper:
        """Make what takes the steps."""
        return self._stepped.make_stepper(self)

    def window(self, state: State) -> StackedWindow:
        """Return what collects the losses between points."""
        self._window = StackedWindow(lambda: self._standing(state), self._diverged)
        return self._window

    def validate(self, state: State) -> dict[str, list[float]]:
        """Evaluate the validation split of every run; keep the weights of those that are the best of theirs so far."""
        assert self._validation is not None
        first, states = self.members[0], self._standing(state)
        with averaged(self.average):
            found = evaluate(
                self.objective,
                first.metrics,
                self._validation,
                batch_size=first.evaluation_batch_size,
                totals_fn=self._totals_fn,
            )
            values = [{f"val/{name}": value for name, value in each.items()} for each in found]
            for place, i in enumerate(self.active):
                if i not in self.errors and self.members[i].ahead(states[place], values[place]):
                    self._keep_best(i, place, values[place])
        self._left |= {i for i in self.active if self.members[i].over(self.states[i])}
        return {name: [each[name] for each in values] for name in values[0]}

    def over(self, state: State) -> bool:
        """Return whether every run has left."""
        return self._left >= {*self.active}

    def content(self, state: State) -> dict[str, Any]:
        """Return what each run needs to be resumed, by its number; None of one that has failed."""
        self._standing(state)
        for place, i in enumerate(self.active):
            self._put(i, place)
        return {"members": list(self._contents)}

    def _standing(self, state: State) -> list[State]:
        """Return the states of the runs in the tensors, brought to where the ensemble stands."""
        states = [self.states[i] for i in self.active]
        share, self._seconds = (state.train_seconds - self._seconds) / len(states), state.train_seconds
        for each in states:
            each.step = state.step
            each.train_seconds += share
        return states

    def _diverged(self, place: int, error: NonFinite) -> None:
        self.errors[self.active[place]] = error
        self._left.add(self.active[place])

    def _keep_best(self, i: int, place: int, metrics: dict[str, float]) -> None:
        self.members[i].best = {"step": self.states[i].step, "metrics": metrics, "model": self._state_dict(i, place)}

    def _state_dict(self, i: int, place: int) -> dict[str, Tensor]:
        """Return a copy of a run's weights, a row of the blocks, by the names that its model has for them."""
        model, params = self.members[i].objective.model, self.members[i].objective.params
        row = self.objective.layout.of_row(self.objective.weights, place, params)
        values = {id(p): value.clone() for p, value in zip(params, row, strict=True)}
        return {name: values[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}

    def _put(self, i: int, place: int) -> None:
        """Give a run its weights, its optimizer's state and its average, as if it had been trained alone."""
        member, layout = self.members[i], self.objective.layout
        params = member.objective.params
        with torch.no_grad():
            for p, value in zip(params, layout.of_row(self.objective.weights, place, params), strict=True):
                p.copy_(value)
        member.optimizer.load_state_dict(self.optimizer.rule.state_of(place, params))
        if member.average and self.average:
            member.average.weights = [w.clone() for w in layout.of_row(self.average.weights, place, params)]
        self._contents[i] = None if i in self.errors else member.content(self.states[i])

    def _settle(self) -> None:
        """Take the runs that have left out of the tensors, unless all have."""
        if self._left & {*self.active} and self._window is not None:
            # what a run that leaves has lost since its last point is its own; who is found to have diverged
            # leaves with it, for the batches of a block must be of the same runs
            self._window.check()
        leaving = self._left & {*self.active}
        if not leaving or leaving == {*self.active}:
            return
        places = [place for place, i in enumerate(self.active) if i not in leaving]
        for place, i in enumerate(self.active):
            if i in leaving:
                self._put(i, place)
        self.active = [self.active[place] for place in places]
        rows = torch.tensor(places, device=self.device)
        average = kept(self.average.weights, rows) if self.average else None
        for part in (self.objective, self.optimizer, self.batches, self._validation):
            if part is not None:
                part.keep(rows)
        if self.average and average is not None:
            self.average = Average(self.objective.params, self.average.decay)
            self.average.weights = average
        self._totals_fn = self._make_totals_fn()  # of the new tensors

    def _make_totals_fn(self) -> TotalsFn:
        totals_fn, wrap = partial(self.objective.totals, self.members[0].metrics), self._stepped.wrap_totals
        return wrap(totals_fn) if wrap else totals_fn

    def _average(self) -> Average | None:
        averages = [member.average for member in self.members]
        if averages[0] is None:
            return None
        average = Average(self.objective.params, averages[0].decay)
        average.weights = self.objective.layout.stacked([each.weights for each in averages if each])
        return average


class Members:
    """A recorder that hands every run's points and checkpoints to that run's own recorder, `recorders[i]`."""

    def __init__(self, ensemble: Ensemble, recorders: Sequence[Recorder[float, Any]]) -> None:
        self._ensemble = ensemble
        self._recorders = recorders
        self._over: set[int] = set()

    def point(self, step: int, epoch: float, values: dict[str, Any]) -> None:
        """Hand a point on: of a list or a tensor each run its own number, of a number the same to all."""
        lists = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in values.items()}
        for place, i in enumerate(self._ensemble.active):
            if i not in self._ensemble.errors:
                own = {name: value[place] if isinstance(value, list) else value for name, value in lists.items()}
                self._recorders[i].point(step, epoch, own)

    def save(self, content: dict[str, Any], best: Sequence[dict[str, Any] | None]) -> None:
        """Hand the checkpoints on; that of a run which has left, once."""
        for i, own in enumerate(content["members"]):
            if own is None or i in self._over:
                continue
            self._recorders[i].save(own, best[i])
            if i not in self._ensemble.active:
                self._over.add(i)


def _splits(splits: Sequence[Split | None], device: torch.device) -> StackedSplits | None:
    given = [split for split in splits if split is not None]
    return StackedSplits(given, device) if given else None


def _unique(schedules: Sequence[Schedule]) -> list[tuple[Schedule, list[int]]]:
    """Return every different schedule, with the numbers of its runs."""
    found: dict[Hashable, tuple[Schedule, list[int]]] = {}
    for i, schedule in enumerate(schedules):
        found.setdefault(traits.function_of(schedule), (schedule, []))[1].append(i)
    return list(found.values())


def _both(one: Hashable, other: Hashable) -> str:
    """Return two values in brackets where they are short enough to be read."""
    text = f" ({one} and {other})"
    return text if len(text) < 60 else ""
