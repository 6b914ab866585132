"""One stack of jobs trained: each is opened and finished as any run, and `loop.train` trains all at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

import torch

from dlrun.engine import loop
from dlrun.runs import presentation
from dlrun.runs.interrupt import Interrupt
from dlrun.runs.open_run import OpenRun, open_run, record_failure
from dlrun.runs.run import complete_run
from dlrun.stacked.training import StackedRecorder, StackedTraining
from dlrun.storage.checkpoint import BestWeights, Checkpoint
from dlrun.storage.files.opening import open_log
from dlrun.sweeps import run_job
from dlrun.sweeps.batched.isolation import redirected
from dlrun.sweeps.batched.members import Member
from dlrun.sweeps.batched.planning import Stack
from dlrun.sweeps.batched.progress import MonitoredRecorder, Show
from dlrun.sweeps.pool.task import Task, TaskResult, attempt, task_result
from dlrun.terminal import output
from dlrun.terminal.output import Output


@dataclass(frozen=True)
class OpenJob:
    """A job with its open run."""

    task: Task
    run: OpenRun
    began: float  # by time.monotonic


class Reporter:
    """A run's own recorder, printing to its log alone."""

    def __init__(self, run: OpenRun, log: TextIO) -> None:
        self._run = run
        self._log = log

    def point(self, step: int, epoch: float, values: dict[str, Any]) -> None:
        with output.only(self._log):
            self._run.recorder.point(step, epoch, values)

    def save(self, checkpoint: Checkpoint, best: BestWeights | None) -> None:
        with output.only(self._log):
            self._run.recorder.save(checkpoint, best)


def train(stack: Stack, tasks: Sequence[Task], interrupt: Interrupt, screen: Output, *, show: Show) -> list[TaskResult]:
    """Train a stack's members, each with its task.

    Progress goes to the `screen`. An interrupt ends all of them, saved. Raises the error of the program itself: the
    members then look killed, and can be resumed one by one.
    """
    results: list[TaskResult] = []
    extra = {"launcher": "batched", "stacked": len(tasks)}
    with ExitStack() as context:
        jobs: list[OpenJob] = []
        for member, task in zip(stack.members, tasks, strict=True):
            found = _open(member, task, context, extra)
            if isinstance(found, OpenJob):
                jobs.append(found)
            else:
                results.append(found)
        if jobs:
            stacked = StackedTraining([job.run.built.training for job in jobs], [job.run.state for job in jobs])
            logs = [context.enter_context(job.task.log.open("a", encoding="utf-8")) for job in jobs]
            everyone = StackedRecorder(stacked, [Reporter(job.run, log) for job, log in zip(jobs, logs, strict=True)])
            torch.set_num_threads(stack.threads)  # opening a run has set its own
            with screen.use():
                show(len(jobs), "their first steps")
                loop.train(stacked, stacked.state, MonitoredRecorder(everyone, stacked, show), stop=_stop(interrupt))
            for i, job in enumerate(jobs):
                job.run.state = stacked.states[i]
                with screen.use():
                    show(len(jobs) - i, "their last evaluation")
                results.append(_finish(job, stacked.errors.get(i), interrupt))
    return results


def _stop(interrupt: Interrupt) -> Callable[[], bool]:
    def stop() -> bool:
        if interrupt.signal is not None:
            output.say("stopping: the jobs save; Ctrl-C again kills them")
        return interrupt.signal is not None

    return stop


def _open(member: Member, task: Task, context: ExitStack, extra: dict[str, Any]) -> OpenJob | TaskResult:
    """Open a run until `context` ends, or return its failure."""
    began = time.monotonic()

    def begin() -> OpenRun:
        if not member.resumed:
            run_job.write(member.folder, member.job.config, member.job.overrides)
        return context.enter_context(open_run(member.built, member.folder, resumed=member.resumed, extra=extra))

    with _own_log(task):
        kind, content, message = attempt(begin)
        if kind != "value":
            return task_result(task, kind, content, message, seconds=time.monotonic() - began)
        presentation.announce(content.built, content.folder, start=content.state.step)
    return OpenJob(task, content, began)


def _finish(job: OpenJob, error: Exception | None, interrupt: Interrupt) -> TaskResult:
    """Evaluate and close a trained run, or record its `error`."""

    def end() -> dict[str, Any]:
        with record_failure(job.run, interrupt):
            if error is not None:
                raise error
            return complete_run(job.run, interrupt).to_dict()

    with _own_log(job.task):
        kind, content, message = attempt(end)
    if kind == "error" and isinstance(content, KeyboardInterrupt):
        kind, content = "exit", 130  # as an interrupted job of the pool exits
    return task_result(job.task, kind, content, message, seconds=time.monotonic() - job.began)


@contextmanager
def _own_log(task: Task) -> Iterator[None]:
    with output.isolated(), redirected(task.log), output.tee(open_log(task.log)):
        yield
