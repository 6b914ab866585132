"""What a sweep would take: a few steps of each kind of job, each in a process of its own, and nothing trained."""

from __future__ import annotations

import heapq
import io
import resource
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from dlrun.config import paths
from dlrun.errors import RunError
from dlrun.execution import device
from dlrun.execution.timing import seconds_for
from dlrun.runs.build import build
from dlrun.storage import identity
from dlrun.storage.manifest import Job
from dlrun.sweeps.pool.pool import Pool
from dlrun.sweeps.pool.slots import Slot
from dlrun.sweeps.pool.task import Task, TaskResult

SHAPELESS = ("lr", "weight_decay", "momentum", "betas", "eps", "data_seed", "split_seed", "seed", "noise", "init")
"""Arguments of parts on which neither the time of a step nor its memory depends."""


@dataclass(frozen=True)
class Cost:
    """What one job takes: seconds of training, bytes of memory at the most, bytes of checkpoints."""

    seconds: float
    memory: int
    disk: int


def costs(jobs: Sequence[Job], slot: Slot) -> list[Cost]:
    """Return what each job takes on a slot, measured once for all that are of one shape.

    Raises `RunError` if a job fails at it.
    """
    shapes: dict[str, Job] = {}
    for job in jobs:
        shapes.setdefault(shape_of(job.config), job)
    measured: dict[int, Cost] = {}
    failed: list[TaskResult] = []

    def done(outcome: TaskResult) -> bool:
        if outcome.error is None:
            measured[outcome.key] = outcome.value
        else:
            failed.append(outcome)
        return outcome.error is None

    with tempfile.TemporaryDirectory(prefix="dlrun-check-") as folder, Pool([slot]) as pool:
        tasks = [
            Task(j.n, partial(cost, j.config), " ".join(j.overrides), Path(folder, "log")) for j in shapes.values()
        ]
        pool.run(tasks, on_result=done)
    if failed:
        raise RunError(f"{failed[0].label}: a few steps failed: {failed[0].message}")
    return [measured[shapes[shape_of(job.config)].n] for job in jobs]


def cost(config: dict[str, Any]) -> Cost:
    """Return what a job takes, from a few steps of it in this process."""
    paths.enable_user_modules()
    built = build(OmegaConf.create(config))
    device.apply(built.execution)
    training = built.training
    seconds = seconds_for(training) if built.trainer.minutes is None else built.trainer.minutes * 60
    model = training.objective.model.state_dict()
    disk = _size({"model": model, "optimizer": training.optimizer.state_dict()}) + _size(model)
    if training.device.type == "cuda":
        return Cost(seconds, torch.cuda.max_memory_reserved(training.device), disk)
    # in kilobytes but on macOS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Cost(seconds, peak, disk)


def makespan(seconds: Sequence[float], slots: int) -> float:
    """Return how long jobs take on so many slots, each started when one is free.

    >>> makespan([3, 1, 1, 1], 2), makespan([], 2)
    (3.0, 0.0)
    """
    free = [0.0] * slots
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def shape_of(config: dict[str, Any]) -> str:
    """Return the hash of what the cost of a job depends on."""

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: shape(v) for k, v in value.items() if k not in SHAPELESS}
        return value

    return identity.digest(shape(identity.essential(config)))


def _size(content: dict[str, Any]) -> int:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.tell()
