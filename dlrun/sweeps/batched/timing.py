"""How fast runs go, stacked and single, measured on a few steps; and how many have room in memory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from dlrun.engine.loop import Training
from dlrun.engine.protocols import Trainable
from dlrun.engine.steppers import EagerStepper
from dlrun.execution.cuda_graphs import steps_per_graph
from dlrun.execution.device import threads_for
from dlrun.runs.build import Built
from dlrun.runs.dry_run.passes import FEW
from dlrun.stacked.training import StackedTraining
from dlrun.terminal import output
from dlrun.terminal.format import duration

TRIED = 16
"""Runs that are timed as a stack on a CPU. On a GPU it is all of them, for they fill it differently."""

SECONDS, STEPS = 0.1, 5
"""How long steps are timed, and how many there are at least."""

SHARE = 0.3
"""The share of the free memory that a stack may take."""

COPIES = 12
"""Copies of each run's weights in a stack: gradients, moments, best, checkpoint and temporaries."""

SERVER, PROCESS = 1.3, 0.1
"""Seconds until the pool's first job begins, and more for each job.

Measured on a 2-core EPYC, by sweeps of 2 and of 42 one-step jobs under `local` and `batched`.
"""


@dataclass(frozen=True)
class Estimate:
    """The measured cost of `count` runs of `steps` steps.

    `stacked` and `single` are seconds of a step of one run.
    """

    count: int
    steps: int
    threads: int
    stacked: float
    single: float

    @property
    def seconds(self) -> float:
        """The time of the whole stack."""
        return self.count * self.steps * self.stacked

    def why_not(self, slots: int) -> str | None:
        """The reason against the stack, or None."""
        if self.stacked >= self.single:
            return self._per_step()
        # faster per step may still be slower in all: the pool has several slots
        in_pool = seconds_in_pool(self.count, self.steps * self.single, slots)
        if in_pool <= self.seconds:
            return f"about {duration(in_pool)} in {slots} slots, {duration(self.seconds)} as one program"
        return None

    def __str__(self) -> str:
        return f"about {duration(self.seconds)}: {self._per_step()}"

    def _per_step(self) -> str:
        return f"a step of a run takes {_short(self.stacked)} stacked, {_short(self.single)} alone"


def seconds_in_pool(count: int, seconds: float, slots: int) -> float:
    """Seconds of `count` equal jobs in the pool.

    >>> seconds_in_pool(10, 0.1, slots=2)
    2.3
    """
    return SERVER + count * (PROCESS + seconds) / min(slots, count)


def time_stacked(trainings: Sequence[Training], *, threads: int) -> float:
    """Seconds of a stack's step, divided by its runs."""
    some = trainings if trainings[0].device.type == "cuda" else trainings[:TRIED]
    # the runs themselves take no step: a stack copies their weights
    return _timed(StackedTraining(some), threads) / len(some)


def time_single(training: Training, *, threads: int) -> float:
    """Seconds of a step; the run has then taken some."""
    return _timed(training, threads)


def _timed(run: Trainable[Any, Any, Any], threads: int) -> float:
    """Seconds of the fastest step."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    run.objective.train()
    step, spent, took = 0, 0.0, list[float]()
    try:
        # on a GPU as they will be taken, for launches are most of a small eager step; on a CPU eagerly, for to
        # compile may take longer than the run
        with output.only():  # warnings about graphs come again when the runs are trained
            stepper = run.stepper() if run.device.type == "cuda" else EagerStepper(run)
        with closing(stepper.start(0)) as blocks:
            for block in blocks:
                tic = time.perf_counter()
                # more steps than a short run has: no schedule is asked beyond its end
                stepper.take(max(0, min(step, run.plan.steps - len(block))), block)
                if run.device.type == "cuda":
                    torch.cuda.synchronize(run.device)
                seconds = time.perf_counter() - tic
                took.append(seconds / len(block))
                step, spent = step + len(block), spent + seconds
                if len(took) > STEPS and spent > SECONDS:
                    break
    finally:
        torch.set_num_threads(before)
    # not the mean: other programs only ever add to a step
    return min(took)


def stacked_threads(built: Built, count: int, *, cores: int) -> int:
    """CPU threads for a step of `count` such runs."""
    if built.trainer.threads is not None:
        return built.trainer.threads
    flop = built.flop_per_step * count
    return min(cores, threads_for(flop, built.execution.device)) if flop else 1


def room(training: Training) -> int:
    """The number of such runs that fit in memory."""
    model = training.objective.model
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    # one byte more keeps the divisor above zero
    each = COPIES * weights + 3 * _activation_bytes(training) + _block_bytes(training) + 1
    free = torch.cuda.mem_get_info(training.device)[0] if training.device.type == "cuda" else _free_bytes()
    return max(1, int(SHARE * free / each))


def _block_bytes(training: Training) -> int:
    """Bytes of a CUDA graph's block of batches."""
    # only CUDA graphs take blocks of batches
    if training.make_stepper is EagerStepper or training.device.type != "cuda":
        return 0
    sample = training.batches.split.gather(torch.zeros(1, dtype=torch.long, device=training.device))
    # twice: drawn, and copied
    size = sum(t.numel() * t.element_size() for t in sample.tensors())
    return 2 * steps_per_graph(training) * training.batches.size * size


def _free_bytes() -> int:
    return int(psutil.virtual_memory().available)


def _activation_bytes(training: Training) -> int:
    """Bytes of all modules' outputs for a batch."""
    total = 0

    def add(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal total
        total += output.numel() * output.element_size() if isinstance(output, Tensor) else 0

    model = training.objective.model
    hooks = [module.register_forward_hook(add) for module in model.modules()]
    try:
        x, _ = training.batches.split.gather(torch.arange(FEW, device=training.device))
        with torch.no_grad(), training.objective.precision():
            model(x.to(training.device))
    finally:
        for hook in hooks:
            hook.remove()
    # scaled up from the few samples to a batch
    per_sample = (total + x.numel() * x.element_size()) / len(x)
    return int(per_sample * training.batches.size)


def _short(seconds: float) -> str:
    return f"{1e6 * seconds:.3g} µs" if seconds < 1e-3 else f"{1e3 * seconds:.3g} ms"
