"""Memory and time of a step in each way to keep activations: what `trainer.profile=memory` shows.

The ways take turns, and a time is the median over the rounds: whatever else the machine does, it does to all of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from statistics import median

import torch
from torch import Tensor, nn

from dlrun.engine.forward.checkpointing import Every, apply, remove, requiring_calls
from dlrun.engine.forward.recomputing import RECOMPUTES, recomputing
from dlrun.engine.loop import Training
from dlrun.engine.objective import Objective
from dlrun.errors import ConfigError
from dlrun.execution.activations import peak_of
from dlrun.execution.device import wait_for
from dlrun.optimizers.descent import differentiate
from dlrun.randomness import preserve_generators
from dlrun.terminal.format import amount, table
from dlrun.types import Batch, StepMemory

PLAIN, REVERSIBLE = "plain", "reversible"
CHECKPOINTED: tuple[Every, ...] = ("every block", "sqrt")
ROUNDS = 9
SECONDS = 10.0
"""Time to spend on rounds, after the third."""


def measure(training: Training, every: Every) -> dict[str, StepMemory]:
    """Measure a step's activations and time in each way that suits the model; empty for one without gradients.

    A way for which a GPU has too little memory is left out. `every` is the way of `trainer.activation_checkpointing`,
    which the model has. Model and generators are left as they were.
    """
    objective = training.objective
    if not objective.params:
        return {}
    with (
        preserve_generators(),
        _undone(objective),
        _Ways(objective.model, every) as ways,
        closing(training.batches.start(0)) as batches,
    ):
        batch = _portion(next(batches), getattr(training.optimizer, "accumulate", 1))
        held = [*objective.params, *objective.buffers(), *objective.model.parameters(), *batch.tensors()]
        found: dict[str, StepMemory] = {}
        for name in [PLAIN, *ways.others(objective, batch)]:
            ways.use(name)
            try:
                _step(objective, batch)  # what is made once is no activation
                found[name] = {"activations": peak_of(lambda: _step(objective, batch), held, training.device)}
            except torch.OutOfMemoryError:
                continue  # of a GPU: this way is none for the model
        _add_times(found, _rounds(objective, batch, ways, [*found]))
    return found


def describe(found: Mapping[str, StepMemory], every: Every) -> str:
    """A table of the ways, the run's own marked."""
    rows = [["", "activations", "forward", "backward", "step"]]
    own = own_way(found, every)
    for name, each in found.items():
        peak = each.get("activations")
        rows.append(
            [
                f"{name} *" if name == own else name,
                "not known" if peak is None else amount(peak, "B"),
                *(f"{1e3 * each[key]:.3g} ms" for key in ("forward", "backward")),
                f"{each['relative']:.2f} ×" if "relative" in each else "",
            ]
        )
    return table(rows)


def own_way(found: Mapping[str, StepMemory], every: Every) -> str:
    """The name of the way in which the run trains."""
    if every:
        return "sqrt" if every == "sqrt" else "every block"
    return REVERSIBLE if found.get(REVERSIBLE) else PLAIN


class _Ways:
    """Switches a model between the ways; at the end it has its own again."""

    def __init__(self, model: nn.Module, every: Every) -> None:
        self._model, self._every = model, every

    def __enter__(self) -> _Ways:
        remove(self._model)
        self._reversible = recomputing(self._model)
        return self

    def __exit__(self, *_: object) -> None:
        self.use(REVERSIBLE)
        apply(self._model, self._every)

    def use(self, name: str) -> None:
        remove(self._model)
        for module in self._reversible:
            setattr(module, RECOMPUTES, name == REVERSIBLE)
        if name in CHECKPOINTED:
            apply(self._model, name)

    def others(self, objective: Objective, batch: Batch) -> list[str]:
        """The ways that the model has beside the plain one."""
        found = [REVERSIBLE] if self._reversible else []
        for name in CHECKPOINTED:
            try:
                self.use(str(name))
                with requiring_calls(self._model):
                    objective(batch)
            except ConfigError:
                continue
            found.append(str(name))
        return found


@contextmanager
def _undone(objective: Objective) -> Iterator[None]:
    """Train within the context, and put the buffers back."""
    modes = [(module, module.training) for each in objective.modules for module in each.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in objective.buffers()]
    objective.train()
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for module, mode in modes:
            module.training = mode


def _portion(batch: Batch, parts: int) -> Batch:
    """The part of a batch that is in memory at once."""
    return batch.rows(slice(-(-batch.size // parts)))


def _step(objective: Objective, batch: Batch) -> list[Tensor]:
    loss = objective(batch)
    return differentiate(loss, objective.params)


def _rounds(objective: Objective, batch: Batch, ways: _Ways, names: list[str]) -> list[dict[str, tuple[float, float]]]:
    """The seconds of forward and backward pass by way, in each round."""
    rounds: list[dict[str, tuple[float, float]]] = []
    began = time.monotonic()
    while len(rounds) < 3 or (len(rounds) < ROUNDS and time.monotonic() - began < SECONDS):
        took = {}
        # each way comes as often early as late
        for name in names if len(rounds) % 2 else reversed(names):
            ways.use(name)
            took[name] = _time(objective, batch)
        rounds.append(took)
    return rounds


def _time(objective: Objective, batch: Batch) -> tuple[float, float]:
    device = batch.tensors()[0].device
    start = _now(device)
    loss = objective(batch)
    middle = _now(device)
    differentiate(loss, objective.params)
    return middle - start, _now(device) - middle


def _now(device: torch.device) -> float:
    # of the CPU the time of this program alone, by all of its threads
    if device.type == "cpu":
        return time.process_time()
    wait_for(device)
    return time.perf_counter()


def _add_times(found: dict[str, StepMemory], rounds: list[dict[str, tuple[float, float]]]) -> None:
    for name, each in found.items():
        each["forward"], each["backward"] = (median(r[name][place] for r in rounds) for place in (0, 1))
        if PLAIN in found:
            # within a round, for the machine may be slower in another
            each["relative"] = median(sum(r[name]) / max(sum(r[PLAIN]), 1e-9) for r in rounds)
