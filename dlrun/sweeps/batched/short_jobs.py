"""Short jobs in this process, one after another: a process of their own would take longer to start than they take."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import median

from dlrun.runs.interrupt import Interrupt, exception_for
from dlrun.storage.jobs.job import Job
from dlrun.sweeps.batched import timing
from dlrun.sweeps.batched.isolation import isolated
from dlrun.sweeps.job_events import JobEvents
from dlrun.sweeps.pool.slots import Slot
from dlrun.sweeps.pool.task import Task, TaskResult, attempt, task_result

SHORT = 20
"""Fewer steps than these are over before it pays to stack them.

Measured on a 2-core EPYC: sweeps of 42 small MLPs (moons) of 5, 20 and 60 steps take 3.3, 3.3 and 4.0 s one by one,
and 3.5, 3.5 and 3.6 s stacked.
"""

TICK = 0.25
"""Seconds between two calls of `on_tick`, at the least."""


def is_short(job: Job) -> bool:
    """True if the configuration gives fewer than `SHORT` steps."""
    trainer = job.config["trainer"]
    # by epochs or minutes, the number of steps is not known yet
    steps = None if trainer["minutes"] else trainer["steps"]
    return bool(trainer["fast"]) or (steps is not None and steps < SHORT)


def run_while_faster(
    jobs: Sequence[Job], make_task: Callable[[Job], Task], events: JobEvents, slot: Slot, *, slots: int
) -> tuple[list[Job], float]:
    """Run jobs here for as long as `slots` slots of the pool would take longer.

    Returns the jobs that are left, and the median seconds of those that ran.
    """
    left, seconds = list(jobs), list[float]()

    def is_faster() -> bool:
        # the first job warms up; until the pool would have begun, nothing is lost
        if not seconds or sum(seconds) < timing.SERVER:
            return True
        return len(left) * median(seconds) <= timing.seconds_in_pool(len(left), median(seconds), slots)

    def tasks() -> Iterator[Task]:
        while left and is_faster():
            yield make_task(left.pop(0))

    def done(result: TaskResult) -> bool:
        seconds.append(result.seconds)
        return events.take(result)

    run(tasks(), slot, on_result=done, on_tick=events.show)
    return left, median(seconds)


def run(
    tasks: Iterable[Task],
    slot: Slot,
    *,
    on_result: Callable[[TaskResult], bool],
    on_tick: Callable[[int], None] = lambda _: None,
) -> None:
    """Run the tasks in order; a failure harms no other.

    `on_result` takes each result, and returns False to start no further task. Raises `KeyboardInterrupt` or
    `SystemExit(143)` after an interrupt, which the running task has obeyed.
    """
    ticked = 0.0
    with Interrupt() as interrupt:
        for task in tasks:
            if interrupt.signal is not None:
                break
            if time.monotonic() > ticked + TICK:
                on_tick(1)
                ticked = time.monotonic()
            if not on_result(_run(task, interrupt, threads=slot.threads)):
                break
    if interrupt.signal is not None:
        raise exception_for(interrupt.signal)


def _run(task: Task, interrupt: Interrupt, *, threads: int) -> TaskResult:
    began = time.monotonic()
    with isolated(task.log, threads=threads):
        kind, content, message = attempt(task.call)
    if kind == "error" and interrupt.signal is not None:
        # the code with which an interrupted job of the pool exits
        kind, content = "exit", 128 + (signal.SIGTERM if interrupt.signal == signal.SIGTERM else signal.SIGINT)
    return task_result(task, kind, content, message, seconds=time.monotonic() - began)
