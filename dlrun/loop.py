"""The loop. One, for every kind of model, loss and optimizer; it knows no configuration and no tracker.

`train` can be called from a notebook with parts made by hand. It reads training batches and the
validation split; the test split is not within its reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from math import inf, isnan
from typing import Any, Protocol

import torch
from torch import Tensor

from dlrun.averaging import Average
from dlrun.batches import Batches
from dlrun.evaluation import evaluate
from dlrun.meters import Clock, Window
from dlrun.objective import Objective
from dlrun.plan import Plan
from dlrun.randomness import STEP, key, seed_default
from dlrun.state import State
from dlrun.types import Metric, Optimizer, Schedule, Split


class Recorder(Protocol):
    """Who is told what the loop finds out."""

    def point(self, step: int, epoch: float, values: dict[str, float]) -> None:
        """Take a point of the curves."""

    def save(self, content: dict[str, Any], best: dict[str, Any] | None) -> None:
        """Keep a checkpoint, and the best weights if they are new since the last one."""


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
    best: dict[str, Any] | None = None
    """The weights and metrics of the best validation so far."""


def train(run: Training, state: State, recorder: Recorder, stop: Callable[[], bool] = lambda: False) -> State:
    """Train until the plan is done, patience is out, or `stop` says so; return where the run stands.

    Raises `NonFinite` as soon as a logged loss is not a number, naming the step.
    """
    objective, optimizer, plan = run.objective, run.optimizer, run.plan
    window = Window(state)
    clock = Clock(state)
    objective.model.train()
    for batch in run.batches.start(state.step):
        if state.step >= plan.steps or out_of_patience(run, state) or stop():
            break

        # dropout and the like draw from a generator that each step sets anew: nothing of it to save
        seed_default(run.device, key(run.seed, STEP, state.step))
        rate = optimizer.lr * run.schedule(state.step, plan.steps)
        update = optimizer.step(objective, batch, rate)
        state.step += 1
        window.add(update.loss, batch.x.shape[0])
        if run.average:
            run.average.update(state.step)

        # the only reads from the device: between them it is never waited for
        if plan.logs(state.step):
            point = window.mean() | {"lr": rate} | clock.throughput(run.batches.size)
            if update.grad_norm is not None:
                point["grad_norm"] = float(update.grad_norm)
            recorder.point(state.step, plan.epoch(state.step), point)
        if run.validation and plan.evaluates(state.step):
            with clock.paused():
                recorder.point(state.step, plan.epoch(state.step), validate(run, state))
        if plan.saves(state.step, clock.since_save()):
            with clock.paused():
                save(run, state, window, recorder)
            clock.saved()
    clock.stop()
    save(run, state, window, recorder)
    return state


def validate(run: Training, state: State) -> dict[str, float]:
    """Evaluate the validation split, and keep the weights if they are the best so far."""
    assert run.validation is not None
    with averaged(run):
        found = evaluate(
            run.objective, run.metrics, run.validation, batch_size=run.evaluation_batch_size, device=run.device
        )
        metrics = {f"val/{name}": value for name, value in found.items()}
        value = metrics[run.monitor]
        rank = (_rank(-value if run.higher_is_better else value), _rank(metrics["val/loss"]))
        ahead = state.best_rank is None or rank < state.best_rank
        state.waited = 0 if ahead else state.waited + 1
        if ahead:
            state.best_step, state.best_rank = state.step, rank
            run.best = {"step": state.step, "metrics": metrics, "model": copied(run.objective.model.state_dict())}
    return metrics


def _rank(value: float) -> float:
    # nothing is smaller than NaN, so it would be the best for ever
    return inf if isnan(value) else value


def out_of_patience(run: Training, state: State) -> bool:
    """Return whether as many validations in a row as allowed brought nothing better."""
    return run.patience is not None and state.waited >= run.patience


def averaged(run: Training) -> AbstractContextManager[None]:
    """Return the context in which the model has the weights that count."""
    return run.average.applied() if run.average else nullcontext()


def save(run: Training, state: State, window: Window, recorder: Recorder) -> None:
    """Hand all that a resumed loop needs to the recorder."""
    window.check()
    content = {
        "model": run.objective.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "average": run.average.weights if run.average else None,
        "state": asdict(state),
    }
    recorder.save(content, run.best)


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
