"""The time, memory and disk of a sweep, from a few steps of each kind of job in a process of its own."""

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
from dlrun.errors import UserError
from dlrun.execution import device
from dlrun.execution.timing import Forecast, forecast
from dlrun.runs.build import build
from dlrun.storage import identity
from dlrun.storage.jobs.job import Job
from dlrun.sweeps.pool.pool import Pool
from dlrun.sweeps.pool.slots import Slot
from dlrun.sweeps.pool.task import Task, TaskResult

SHAPELESS = (
    "lr",
    "weight_decay",
    "momentum",
    "betas",
    "eps",
    "data_seed",
    "split_seed",
    "fold",
    "seed",
    "noise",
    "init",
)
"""Arguments of parts that change neither the time of a step nor its memory."""


@dataclass(frozen=True)
class JobCost:
    """The cost of one job; `why` is the reason for values that are None."""

    seconds: float | None
    memory: int | None  # bytes, at the peak
    disk: int | None  # bytes of the checkpoints: the last with its optimizer, and the best weights
    why: str = ""


def job_costs(jobs: Sequence[Job], slot: Slot) -> list[JobCost]:
    """The cost of each job, measured once per shape.

    What a job's process or its steps fail at is not known. Raises the job's own `UserError`.
    """
    # the seed, the learning rate and the like do not change the cost
    shape_of_job = [shape_of(job.config) for job in jobs]
    shapes: dict[str, Job] = {}
    for shape, job in zip(shape_of_job, jobs, strict=True):
        shapes.setdefault(shape, job)
    measured: dict[int, JobCost] = {}
    mistakes: list[UserError] = []

    def take(result: TaskResult) -> bool:
        if isinstance(result.error, UserError):
            mistakes.append(result.error)
        why = f"{result.label}: a few steps of it failed: {result.message}"
        # a process that the system has killed for its memory, say: a measurement only
        measured[result.key] = JobCost(None, None, None, why) if result.error else result.value
        return not mistakes

    # in the pool, so that the peak of memory is this job's alone
    with tempfile.TemporaryDirectory(prefix="dlrun-check-") as folder, Pool([slot]) as pool:
        tasks = [
            Task(j.n, partial(measure, j.config), " ".join(j.overrides), Path(folder, "log")) for j in shapes.values()
        ]
        pool.run(tasks, on_result=take)
    if mistakes:
        raise mistakes[0]
    return [measured[shapes[shape].n] for shape in shape_of_job]


def measure(config: dict[str, Any]) -> JobCost:
    """Measure a few steps of a job, in this process."""
    paths.enable_user_modules()
    built = build(OmegaConf.create(config))
    device.apply(built.execution)
    training = built.training
    # a run of so many minutes takes these, whatever a step costs
    takes = forecast(training) if built.trainer.minutes is None else Forecast(built.trainer.minutes * 60)
    model = training.objective.model.state_dict()
    disk = _size({"model": model, "optimizer": training.optimizer.state_dict()}) + _size(model)
    if training.device.type == "cuda":
        return JobCost(takes.seconds, torch.cuda.max_memory_reserved(training.device), disk, takes.why)
    # ru_maxrss is in kilobytes, on macOS in bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return JobCost(takes.seconds, peak, disk, takes.why)


def makespan(seconds: Sequence[float], slots: int) -> float:
    """The time of all jobs on so many slots.

    >>> makespan([3, 1, 1, 1], 2), makespan([], 2)
    (3.0, 0.0)
    """
    free = [0.0] * slots
    for each in seconds:
        # each job starts on the slot that is free first
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def shape_of(config: dict[str, Any]) -> str:
    """A hash of the configuration without `SHAPELESS` keys."""

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: shape(v) for k, v in value.items() if k not in SHAPELESS}
        return value

    return identity.digest(shape(identity.essential(config)))


def _size(content: dict[str, Any]) -> int:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.tell()
