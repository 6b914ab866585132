"""How fast runs go alone and together, measured on a few steps; and how many have room."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from dlrun.engine.loop import Training
from dlrun.engine.protocols import Trainable
from dlrun.engine.steppers import EagerStepper
from dlrun.execution.cuda_graphs import steps_per_graph
from dlrun.execution.device import threads_for
from dlrun.runs.rehearsal import FEW
from dlrun.stacked.training import Ensemble
from dlrun.terminal import output as console

TRIED = 16
"""Runs that are timed together on a CPU; on a GPU all, for they go beside each other."""
SECONDS, STEPS = 0.1, 5
"""For how long steps are timed, and how many there are at the least."""
SHARE = 0.3
"""The share of the free memory that an ensemble may take."""
COPIES = 12
"""Copies of a run's weights in an ensemble: gradients, moments, the best, those of the checkpoint, and temporaries."""


def together(trainings: Sequence[Training], *, threads: int) -> float:
    """Return the seconds that a step takes for each run of an ensemble; the runs are left as they are."""
    some = trainings if trainings[0].device.type == "cuda" else trainings[:TRIED]
    ensemble = Ensemble(some)  # a copy: what becomes of it is of no concern
    return _timed(ensemble, threads) / len(some)


def alone(training: Training, *, threads: int) -> float:
    """Return the seconds of a step of one run, which is spent by it."""
    return _timed(training, threads)


def _timed(run: Trainable[Any, Any], threads: int) -> float:
    """Return the seconds of the fastest of some steps: what other programs take meanwhile is not in it.

    On a GPU they are taken in the way in which they will be, for the launches are most of what an eager small step
    costs. To compile a program for a CPU may take longer than the run.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    run.objective.model.train()
    step, spent, took = 0, 0.0, list[float]()
    try:
        with console.only():  # what is in the way of graphs is said when the runs are trained
            stepper = run.stepper() if run.device.type == "cuda" else EagerStepper(run)
        for block in stepper.start(0):
            tic = time.perf_counter()
            stepper.take(step, block)
            if run.device.type == "cuda":
                torch.cuda.synchronize(run.device)
            seconds = time.perf_counter() - tic
            took.append(seconds / len(block))
            step, spent = step + len(block), spent + seconds
            if len(took) > STEPS and spent > SECONDS:
                break
    finally:
        torch.set_num_threads(before)
    return min(took)


def threads_together(flop: int, count: int, device: torch.device, *, asked: int | None, cores: int) -> int:
    """Return how many threads an ensemble's step is worth, as `threads_for` does for one run's."""
    if asked is not None:
        return asked
    return min(cores, threads_for(flop * count, device)) if flop * count else 1


def room(training: Training) -> int:
    """Return how many runs like this one have room in memory, by its weights and what a batch makes of them."""
    model = training.objective.model
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    each = COPIES * weights + 3 * _activations(training) + _block(training) + 1
    free = torch.cuda.mem_get_info(training.device)[0] if training.device.type == "cuda" else _free()
    return max(1, int(SHARE * free / each))


def _block(training: Training) -> int:
    """Return the bytes of the batches of a block, which graphs have drawn before them, and copied."""
    if training.make_stepper is EagerStepper or training.device.type != "cuda":
        return 0
    sample = training.batches.split.gather(torch.zeros(1, dtype=torch.long, device=training.device))
    return 2 * steps_per_graph(training) * training.batches.size * sum(t.numel() * t.element_size() for t in sample)


def _free() -> int:
    return int(psutil.virtual_memory().available)


def _activations(training: Training) -> int:
    """Return the bytes of what the modules answer to a batch."""
    seen = 0

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal seen
        seen += output.numel() * output.element_size() if isinstance(output, Tensor) else 0

    model = training.objective.model
    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        x, _ = training.batches.split.gather(torch.arange(FEW, device=training.device))
        with torch.no_grad(), training.objective.precision():
            model(x.to(training.device))
    finally:
        for hook in hooks:
            hook.remove()
    per_sample = (seen + x.numel() * x.element_size()) / len(x)
    return int(per_sample * training.batches.size)
