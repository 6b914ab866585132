"""The loop. One, for every kind of model, loss and optimizer; it knows no configuration and no tracker.

`train` can be called from a notebook with parts made by hand. It reads training batches and the
validation split; the test split is not within its reach.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import inf, isnan
from typing import Any, TypeVar

import torch
from torch import Tensor

from dlrun.engine.batches import Batches
from dlrun.engine.ema import Average
from dlrun.engine.evaluation import evaluate, is_divisible, totals
from dlrun.engine.failures.explaining import describe_batch, explain, explaining_evaluation, parts_of
from dlrun.engine.failures.memory import Memory, evaluate_fitting
from dlrun.engine.meters import Clock, LossMeter
from dlrun.engine.objective import Objective
from dlrun.engine.own.state import OwnState
from dlrun.engine.parameters.gradient_norms import GradientNorms
from dlrun.engine.parameters.values import parameter_values
from dlrun.engine.plan import Plan
from dlrun.engine.protocols import (
    Losses,
    MakeStepper,
    Optimizer,
    Ranks,
    Rate,
    Recorder,
    Steppable,
    Stepper,
    TotalsFn,
    Trainable,
)
from dlrun.engine.reading.streams import StreamBatches
from dlrun.engine.state import State
from dlrun.engine.steppers import EagerStepper, FirstSteps, LimitedStepper, Thaw, ThawingStepper, measuring
from dlrun.errors import DlrunError, RunError
from dlrun.randomness import EVALUATION, key
from dlrun.storage.checkpoint import BestWeights, Checkpoint
from dlrun.types import Batch, Metric, Schedule, Split, Update

TrainingBatches = Batches | StreamBatches
"""The batches of a run: of samples by number, or of a stream."""
Computed = TypeVar("Computed")
Value = TypeVar("Value")
Saved = TypeVar("Saved")
Best = TypeVar("Best")


@dataclass
class Training:
    """The parts of a run, ready for the loop.

    `make_stepper` decides how steps are taken, `wrap_totals` how the totals of a validation batch are computed:
    `runs.build` passes those of compiled programs and CUDA graphs here. `ranks` are the processes of a run that has
    several.
    """

    objective: Objective
    batches: TrainingBatches
    optimizer: Optimizer
    schedule: Schedule
    plan: Plan
    seed: int
    device: torch.device
    validation: Split | None = None
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    evaluation_batch_size: int = 1000
    monitor: str = "val/loss"
    higher_is_better: bool = False
    patience: int | None = None
    average: Average | None = None
    make_stepper: MakeStepper = EagerStepper
    wrap_totals: Callable[[TotalsFn], TotalsFn] | None = None
    best: BestWeights | None = None
    own: OwnState | None = None
    thaw: Thaw | None = None
    log_parameters: bool = False
    ranks: Ranks | None = None
    memory: Memory = field(default_factory=Memory)

    def step(self, batch: Batch, rate: Rate) -> Update:
        return self.optimizer.step(self.objective, batch, rate)  # type: ignore[arg-type]  # a tensor when it is traced

    def rate(self, step: int) -> float:
        return self.optimizer.lr * self.schedule(step, self.plan.steps)

    def stepper(self) -> Stepper:
        stepper = measuring(self.make_stepper(self), self)
        if self.memory.later:
            stepper = LimitedStepper(stepper, self.memory)
        if self.thaw:
            stepper = ThawingStepper(stepper, self.objective, self.thaw)
        return FirstSteps(stepper, self.own) if self.own else stepper

    def loss_meter(self, state: State) -> Losses[float]:
        return self.ranks.meter(state) if self.ranks else LossMeter(state)

    def validate(self, state: State) -> dict[str, float]:
        assert self.validation is not None
        if self.own:
            self.own.seed(key(self.seed, EVALUATION, state.step))
        with use_average(self.average):
            if self.ranks:  # within: the averaged statistics of norms differ between processes too
                self.ranks.align(self.objective)
            options: Any = {"totals_fn": self._totals_fn, "train": self.batches.split}
            options["shares"] = self.ranks.shares if self.ranks else None
            means = self.evaluate(self.validation, state.step, **options)
            metrics = {f"val/{name}": value for name, value in means.items()}
            if self.ahead(state, metrics):
                self.best = self.weights(state.step, metrics)  # the averaged ones, if there is an average
        return metrics

    def evaluate(self, split: Split, step: int, **options: Any) -> dict[str, float]:
        """`evaluation.evaluate` after a step."""
        compute = partial(evaluate, self.objective, self.metrics, split, device=self.device, **options)
        return self.fitting(lambda size: compute(batch_size=size), split, step)

    def fitting(self, compute: Callable[[int], Computed], split: Split, step: int) -> Computed:
        """`compute` with as many samples of a split at once as fit into the memory after a step."""
        # several processes have chunks in turn
        divisible = self.ranks is None and is_divisible(self.objective, self.metrics, split)
        return evaluate_fitting(compute, self.memory, self.evaluation_batch_size, step=step, divisible=divisible)

    def weights(self, step: int, metrics: dict[str, float]) -> BestWeights:
        """A copy of the weights as they are."""
        own = self.own.state_dict() if self.own else {}
        return BestWeights(step, metrics, clone_state(self.objective.model.state_dict()), clone_state(own))

    def put(self, best: BestWeights) -> None:
        """Take these weights."""
        self.objective.model.load_state_dict(best.model)
        self.put_own(best)

    def put_own(self, best: BestWeights) -> None:
        """Take the state of the other parts: an evaluation may have changed it."""
        if self.own and best.own:
            self.own.load_state_dict(best.own)

    @cached_property
    def _totals_fn(self) -> TotalsFn:
        # made once: a CUDA graph, which it may be, is recorded in the first validation and serves all
        totals_fn = partial(totals, self.objective, self.metrics)
        return self.wrap_totals(totals_fn) if self.wrap_totals else totals_fn

    def ahead(self, state: State, metrics: Mapping[str, float]) -> bool:
        """Are these the best metrics so far? Updates `state`."""
        value = metrics[self.monitor]
        rank = (_rank(-value if self.higher_is_better else value), _rank(metrics["val/loss"]))
        ahead = state.best_rank is None or rank < state.best_rank
        state.waited = 0 if ahead else state.waited + 1
        if ahead:
            state.best_step, state.best_rank = state.step, rank
        return ahead

    def over(self, state: State) -> bool:
        """Is the run out of patience?"""
        return self.patience is not None and state.waited >= self.patience  # so many were no better

    def checkpoint(self, state: State) -> Checkpoint:
        """The checkpoint of this step, for `restore`."""
        optimizer = self.optimizer.state_dict()
        if self.own and self.own.optimizer:
            self.own.optimizer.look(optimizer)
        return Checkpoint(
            model=self.objective.model.state_dict(),
            optimizer=optimizer,
            average=self.average.weights if self.average else None,
            state=state.to_dict(),
            own=self.own.state_dict() if self.own else {},
            stream=self.batches.state_dict(state.step) if isinstance(self.batches, StreamBatches) else {},
        )

    def make_whole(self) -> None:
        """Have this process hold all of the run after the loop, if it had a part in it."""


def train(
    run: Trainable[Value, Saved, Best],
    state: State,
    recorder: Recorder[Value, Saved, Best],
    stop: Callable[[], bool] = lambda: False,
) -> State:
    """Train to the end of the plan; returns the state.

    It ends earlier if the run is over (out of patience), or if `stop()` is true. Raises `NonFinite` as soon as a logged
    loss is not a finite number, naming the step.
    """
    run.objective.train()
    plan, stepper, losses = run.plan, run.stepper(), run.loss_meter(state)
    clock, norms = Clock(state), GradientNorms(run.objective)
    # closed in any case, for that ends the workers that read the data set
    with closing(_blocks(run, stepper, state)) as blocks:
        for block in blocks:
            # after the batches are drawn: that is when runs which have left are taken out of a stack
            if state.step >= plan.steps or run.over(state) or stop():
                break
            updates = _take(run, stepper, state.step, block)
            state.step += len(block)
            for update, batch in zip(updates, block, strict=True):
                losses.add(update, batch)

            # the device is read, and waited for, only here, in a validation and for a checkpoint
            if plan.logs(state.step):
                # the rate of the step just taken
                point: dict[str, Any] = {**losses.mean(), "lr": run.rate(state.step - 1)}
                point |= clock.throughput(run.batches.seen) | norms.read(updates[-1])
                if run.log_parameters:
                    point |= parameter_values(run.objective)
                recorder.point(state.step, plan.epoch(state.step), point)
            if run.validation and plan.evaluates(state.step):
                with clock.paused():
                    with explaining_evaluation(f"The validation after step {state.step}", parts_of(run)):
                        means = run.validate(state)
                    recorder.point(state.step, plan.epoch(state.step), means)
            if plan.saves(state.step, clock.since_save()):
                with clock.paused():
                    save(run, state, losses, recorder)
                clock.saved()
        # before the workers end, which may take them seconds
        clock.stop()
    # the last step need be no checkpoint step
    save(run, state, losses, recorder)
    return state


def _blocks(run: Steppable, stepper: Stepper, state: State) -> Generator[Sequence[Batch], None, None]:
    """Yield the stepper's blocks; an exception in a data set or an augmentation names the step."""
    with closing(stepper.start(state.step)) as blocks:
        try:
            yield from blocks
        except DlrunError:
            raise
        except Exception as error:
            raise RunError(explain(error, f"The batch of step {state.step + 1}", parts_of(run))) from error


def _take(run: Steppable, stepper: Stepper, step: int, block: Sequence[Batch]) -> list[Update]:
    """Take a block of steps; an exception names them and the part."""
    try:
        return stepper.take(step, block)
    except DlrunError:
        raise
    except Exception as error:
        error.add_note(describe_batch(block[0]))
        which = f"Step {step + 1}" if len(block) == 1 else f"One of the steps {step + 1} to {step + len(block)}"
        raise RunError(explain(error, which, parts_of(run))) from error


def _rank(value: float) -> float:
    # nothing is smaller than NaN, so it would be the best for ever
    return inf if isnan(value) else value


def use_average(average: Average | None) -> AbstractContextManager[None]:
    """Use the average as the weights within the context."""
    return average.applied() if average else nullcontext()


def save(
    run: Trainable[Value, Saved, Best], state: State, losses: Losses[Value], recorder: Recorder[Value, Saved, Best]
) -> None:
    """Give the recorder a checkpoint."""
    losses.check()  # first: a diverged run is not saved
    recorder.save(run.checkpoint(state), run.best)


def restore(run: Training, checkpoint: Checkpoint) -> State:
    """Load a checkpoint into a run; returns the state.

    Raises various exceptions if it is of another run.
    """
    run.objective.model.load_state_dict(checkpoint.model)
    if run.own and run.own.optimizer:
        run.own.optimizer.check(checkpoint.optimizer)
    run.optimizer.load_state_dict(checkpoint.optimizer)
    if run.average and checkpoint.average is not None:
        run.average.load(checkpoint.average)
    if run.own and checkpoint.own:
        run.own.load_state_dict(checkpoint.own)
    if isinstance(run.batches, StreamBatches):
        run.batches.load_state_dict(checkpoint.stream)
    return State.from_dict(checkpoint.state)


def clone_state(state: Any) -> Any:
    """A copy of a state dict, unchanged by further training."""
    if isinstance(state, dict):
        return {name: clone_state(value) for name, value in state.items()}
    if isinstance(state, list):
        return [clone_state(value) for value in state]
    return state.detach().clone() if isinstance(state, Tensor) else state
