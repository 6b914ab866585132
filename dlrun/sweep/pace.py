"""How fast runs go alone and together, measured on a few steps; and how many have room."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from dlrun.device import threads_for
from dlrun.ensemble import Ensemble
from dlrun.loop import Trained, Training
from dlrun.rehearsal import FEW
from dlrun.stepping import Eager

TRIED = 16
"""Runs that are timed together."""
SECONDS, STEPS = 0.1, 5
"""For how long steps are timed, and how many there are at the least."""
SHARE = 0.3
"""The share of the free memory that an ensemble may take."""
COPIES = 12
"""Copies of a run's weights in an ensemble: gradients, moments, the best, those of the checkpoint, and temporaries."""


def together(trainings: Sequence[Training], *, threads: int) -> float:
    """Return the seconds that a step takes for each run of an ensemble; the runs are left as they are."""
    some = trainings[:TRIED]
    ensemble = Ensemble(some)  # a copy: what becomes of it is of no concern
    return _timed(ensemble, threads) / len(some)


def alone(training: Training, *, threads: int) -> float:
    """Return the seconds of a step of one run, which is spent by it."""
    return _timed(training, threads)


def _timed(run: Trained, threads: int) -> float:
    """Return the seconds of the fastest of some steps: what other programs take meanwhile is not in it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    run.objective.model.train()
    stepping, took = Eager(run), list[float]()  # to compile a program may take longer than the run
    try:
        for step, block in enumerate(stepping.start(0)):
            tic = time.perf_counter()
            stepping.take(step, block)
            if run.device.type == "cuda":
                torch.cuda.synchronize(run.device)
            took.append(time.perf_counter() - tic)
            if len(took) > STEPS and sum(took) > SECONDS:
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
    each = COPIES * weights + 3 * _activations(training) + 1
    free = torch.cuda.mem_get_info(training.device)[0] if training.device.type == "cuda" else _free()
    return max(1, int(SHARE * free / each))


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
