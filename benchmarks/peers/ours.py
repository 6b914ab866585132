"""dlrun: a user's configuration, built as the command builds it and trained by its loop."""

from __future__ import annotations

import functools
from typing import Any

import torch

from benchmarks.peers.watch import Watch
from benchmarks.peers.works import RECIPE, Work
from dlrun.config import compose
from dlrun.datasets.language.from_text import from_tokens
from dlrun.datasets.tensors.tensors import from_tensors
from dlrun.engine import loop
from dlrun.engine.state import State
from dlrun.execution import device
from dlrun.execution.compiled import CompiledStepper
from dlrun.runs.build import Built, build
from dlrun.types import Data

SGD = ("optimizer=sgd", "schedule=constant")
CHOSEN = {
    "convnet": ("model=convnet", *SGD),
    "mlp": ("model=mlp", "model.width=64", *SGD),
    "plane": ("model=mlp", "model.hidden=[2,2,2,2,2,2,2,2]", "model.activation=tanh", *SGD),
    "polynomial": ("model=linear", "loss=mse", *SGD),
    "gpt": (
        *("model=gpt", "model.size=micro", "trainer.clip=1.0", "schedule=cosine"),
        *("schedule.warmup=100", "schedule.floor=0.1"),
        *("optimizer=adamw", "optimizer.beta2=0.99", "optimizer.weight_decay=0.1"),
    ),
}


class Notes:
    """Marks the steps at which the loop has read its losses."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def point(self, step: int, epoch: float, values: dict[str, Any]) -> None:
        self._watch.at(step)

    def save(self, content: Any, best: Any) -> None: ...


def data(work: Work) -> Data:
    """The work's samples as a data set."""
    if work.name == "gpt":
        return from_tokens("bench", work.x, context=RECIPE.context)
    if work.name == "polynomial":
        return from_tensors("bench", (work.x, work.y), task="regression")
    return from_tensors("bench", (work.x, work.y), task="classification", classes=2 if work.name == "plane" else 10)


def built(work: Work, *overrides: str) -> Built:
    """The run of a work."""
    config = compose.config(
        [
            *CHOSEN[work.name],
            f"optimizer.lr={work.lr}",
            f"trainer.steps={work.steps}",
            f"trainer.batch_size={work.batch_size}",
            f"trainer.log_every={work.log_every}",
            *([f"trainer.threads={work.threads}"] if work.threads else []),
            "trainer.checkpoint_every=1000000",
            *overrides,
        ]
    )
    return build(config, data=data(work))


@functools.cache
def _once(work: Work, *overrides: str) -> Built:
    """The run, compiled once for all rounds.

    Raises `RuntimeError` if compiled steps are requested and cannot be had.
    """
    made = built(work, *overrides)
    device.apply(made.execution)
    stepper = made.training.stepper()
    if made.execution.compile and not isinstance(stepper, CompiledStepper):
        raise RuntimeError("the steps could not be compiled")
    made.training.make_stepper = lambda run: stepper
    return made


def train(work: Work, watch: Watch, *, compiled: bool = False) -> dict[str, float]:
    """Train the work's steps; returns the FLOP of one."""
    made = _once(work, f"trainer.compile={compiled}".lower())
    torch.manual_seed(1)
    loop.train(made.training, State(), Notes(watch))
    return {"flop": float(made.flop_per_step)}
