"""The loop. One, for every kind of model, loss and optimizer; it knows no configuration and no tracker.

`train` can be called from a notebook with parts made by hand. It reads training batches and the
validation split; the test split is not within its reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from math import inf, isnan
from typing import Any, Protocol

import torch
from torch import Tensor

from dlrun.engine.batches import Batches
from dlrun.engine.ema import Average
from dlrun.engine.evaluation import evaluate, totals
from dlrun.engine.meters import Clock, Window
from dlrun.engine.objective import Objective
from dlrun.engine.plan import Plan
from dlrun.engine.state import State
from dlrun.engine.steppers import Eager, Stepping, rate
from dlrun.execution.compiled import compiled
from dlrun.execution.cuda_graphs import Asked, asking
from dlrun.types import Batch, Metric, Optimizer, Schedule, Split


class Recorder(Protocol):
    """Who is told what the loop finds out; of an ensemble a value is a list, of a number for each member."""

    def point(self, step: int, epoch: float, values: dict[str, Any]) -> None:
        """Take a point of the curves."""

    def save(self, content: dict[str, Any], best: Any) -> None:
        """Keep a checkpoint, and the best weights if they are new since the last one."""


class Losses(Protocol):
    """The losses since the last point, as `meters.Window` keeps them."""

    def add(self, loss: Tensor, batch: Batch) -> None:
        """Note the loss of a step; nothing is read."""

    def check(self) -> None:
        """Read them, and see to one that is not finite."""

    def mean(self) -> dict[str, Any]:
        """Return the mean over the samples since the last point, and begin anew."""


class Trained(Protocol):
    """What the loop trains: a run (`Training`), or many as one program (`ensemble.Ensemble`)."""

    @property
    def objective(self) -> Any:
        """Return what is differentiated."""

    @property
    def batches(self) -> Any:
        """Return what gives the batches from a step on."""

    @property
    def optimizer(self) -> Any:
        """Return what turns a batch into a change of the parameters."""

    @property
    def schedule(self) -> Callable[[int, int], Any]:
        """Return the factor of the rate as a function of the step and the horizon."""

    @property
    def plan(self) -> Plan:
        """Return when it ends, logs, evaluates and saves."""

    @property
    def seed(self) -> int:
        """Return what the steps' own draws are keyed by."""

    @property
    def device(self) -> torch.device:
        """Return where it computes."""

    @property
    def validation(self) -> Split | None:
        """Return the validation split."""

    @property
    def average(self) -> Average | None:
        """Return the moving average of the weights, if one is kept."""

    @property
    def best(self) -> Any:
        """Return the weights and metrics of the best validation so far."""

    def stepping(self) -> Stepping:
        """Return what takes its steps."""

    def window(self, state: State) -> Losses:
        """Return what collects the losses between points."""

    def validate(self, state: State) -> dict[str, Any]:
        """Evaluate the validation split, and keep the weights if they are the best so far."""

    def over(self, state: State) -> bool:
        """Return whether it ends before its plan does."""

    def content(self, state: State) -> dict[str, Any]:
        """Return all that a resumed loop needs."""


@dataclass
class Training:
    """The parts of a run, ready for the loop."""

    objective: Objective
    batches: Batches
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
    compile: bool = False
    """Whether the steps are to be a compiled program."""
    best: dict[str, Any] | None = None
    """The weights and metrics of the best validation so far."""

    def stepping(self) -> Stepping:
        """Return what takes the steps: a compiled program of them where there is to be one and it can be made."""
        return compiled(self) if self.compile else Eager(self)

    def window(self, state: State) -> Window:
        """Return what collects the losses between points."""
        return Window(state)

    def validate(self, state: State) -> dict[str, float]:
        """Evaluate the validation split, and keep the weights if they are the best so far."""
        assert self.validation is not None
        with averaged(self):
            found = evaluate(
                self.objective,
                self.metrics,
                self.validation,
                batch_size=self.evaluation_batch_size,
                device=self.device,
                asked=self._asked,
            )
            metrics = {f"val/{name}": value for name, value in found.items()}
            if self.ahead(state, metrics):
                weights = copied(self.objective.model.state_dict())
                self.best = {"step": state.step, "metrics": metrics, "model": weights}
        return metrics

    @cached_property
    def _asked(self) -> Asked:
        return asking(partial(totals, self.objective, self.metrics), compile=self.compile, device=self.device)

    def ahead(self, state: State, metrics: Mapping[str, float]) -> bool:
        """Return whether these are the best metrics so far, and note it in `state`."""
        value = metrics[self.monitor]
        rank = (_rank(-value if self.higher_is_better else value), _rank(metrics["val/loss"]))
        ahead = state.best_rank is None or rank < state.best_rank
        state.waited = 0 if ahead else state.waited + 1
        if ahead:
            state.best_step, state.best_rank = state.step, rank
        return ahead

    def over(self, state: State) -> bool:
        """Return whether as many validations in a row as allowed brought nothing better."""
        return self.patience is not None and state.waited >= self.patience

    def content(self, state: State) -> dict[str, Any]:
        """Return all that a resumed loop needs: `restore` takes it."""
        return {
            "model": self.objective.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.weights if self.average else None,
            "state": asdict(state),
        }


def train(run: Trained, state: State, recorder: Recorder, stop: Callable[[], bool] = lambda: False) -> State:
    """Train until the plan is done, the run is over (out of patience), or `stop` says so; return where it stands.

    Raises `NonFinite` as soon as a logged loss is not a number, naming the step.
    """
    run.objective.model.train()
    plan, stepping, window = run.plan, run.stepping(), run.window(state)
    clock = Clock(state)
    for block in stepping.start(state.step):
        if state.step >= plan.steps or run.over(state) or stop():
            break
        updates = stepping.take(state.step, block)
        state.step += len(block)
        for update, batch in zip(updates, block, strict=True):
            window.add(update.loss, batch)

        # the only reads from the device: between them it is never waited for
        if plan.logs(state.step):
            lr = rate(run, state.step - 1)
            point = window.mean() | {"lr": lr} | clock.throughput(run.batches.size)
            if (norm := updates[-1].grad_norm) is not None:
                point["grad_norm"] = norm.tolist()
            recorder.point(state.step, plan.epoch(state.step), point)
        if run.validation and plan.evaluates(state.step):
            with clock.paused():
                recorder.point(state.step, plan.epoch(state.step), run.validate(state))
        if plan.saves(state.step, clock.since_save()):
            with clock.paused():
                save(run, state, window, recorder)
            clock.saved()
    clock.stop()
    save(run, state, window, recorder)
    return state


def _rank(value: float) -> float:
    # nothing is smaller than NaN, so it would be the best for ever
    return inf if isnan(value) else value


def averaged(run: Trained) -> AbstractContextManager[None]:
    """Return the context in which the model has the weights that count."""
    return run.average.applied() if run.average else nullcontext()


def save(run: Trained, state: State, window: Losses, recorder: Recorder) -> None:
    """Hand all that a resumed loop needs to the recorder."""
    window.check()
    recorder.save(run.content(state), run.best)


def restore(run: Training, content: dict[str, Any]) -> State:
    """Put the parts back to where `save` found them, and return the state."""
    run.objective.model.load_state_dict(content["model"])
    run.optimizer.load_state_dict(content["optimizer"])
    if run.average:
        run.average.weights = content["average"]
    state = State(**content["state"])
    state.window = [(loss, count) for loss, count in state.window]
    if state.best_rank is not None:
        state.best_rank = (state.best_rank[0], state.best_rank[1])
    return state


def copied(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state dict whose tensors training will not change."""
    return {name: t.detach().clone() if isinstance(t, Tensor) else t for name, t in state.items()}
