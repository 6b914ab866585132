"""Jobs of one kind trained as one program: each is opened and finished as any run is, and `loop.train` trains all."""

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
from dlrun.runs.run import Open, completed, ended, opened
from dlrun.stacked.training import Ensemble, Members
from dlrun.sweeps import job as work
from dlrun.sweeps.batched.members import Member
from dlrun.sweeps.batched.planning import Stack
from dlrun.sweeps.batched.progress import Show, Watched
from dlrun.sweeps.pool.isolation import printed_to
from dlrun.sweeps.pool.task import Task, TaskResult, attempt, task_result
from dlrun.terminal import output
from dlrun.terminal.output import Output


@dataclass(frozen=True)
class Begun:
    """A member that has begun, with the task that it stands for and the time at which it began."""

    task: Task
    run: Open
    began: float


class Spoken:
    """A recorder whose words go to its own run's log."""

    def __init__(self, run: Open, log: TextIO) -> None:
        self._run = run
        self._log = log

    def point(self, step: int, epoch: float, values: dict[str, Any]) -> None:
        """Hand a point on."""
        with output.only(self._log):
            self._run.recorder.point(step, epoch, values)

    def save(self, content: dict[str, Any], best: Any) -> None:
        """Hand a checkpoint on."""
        with output.only(self._log):
            self._run.recorder.save(content, best)


def train(
    together: Stack, tasks: Sequence[Task], interrupt: Interrupt, screen: Output, *, show: Show
) -> list[TaskResult]:
    """Train the members of a stack as one program, and return what came of each.

    What a person is to see of it is shown on the `screen`. An interrupt ends all of them, saved. Raises what the
    program itself fails with: the members are then as after a kill, and can be gone on with one by one.
    """
    outcomes: list[TaskResult] = []
    noted = {"launcher": "batched", "stacked": len(tasks)}
    with ExitStack() as stack:
        begun: list[Begun] = []
        for member, task in zip(together.members, tasks, strict=True):
            found = _opened(member, task, stack, noted)
            if isinstance(found, Begun):
                begun.append(found)
            else:
                outcomes.append(found)
        if begun:
            ensemble = Ensemble([each.run.built.training for each in begun], [each.run.state for each in begun])
            logs = [stack.enter_context(each.task.log.open("a", encoding="utf-8")) for each in begun]
            recorders = [Spoken(each.run, log) for each, log in zip(begun, logs, strict=True)]
            torch.set_num_threads(together.threads)
            everyone = Members(ensemble, recorders)
            with screen.use():
                show(len(begun), "their first steps")
                loop.train(ensemble, ensemble.state, Watched(everyone, ensemble, show), stop=_asked(interrupt))
            for i, each in enumerate(begun):
                each.run.state = ensemble.states[i]
                with screen.use():
                    show(len(begun) - i, "their last evaluation")
                outcomes.append(_ended(each, ensemble.errors.get(i), interrupt))
    return outcomes


def _asked(interrupt: Interrupt) -> Callable[[], bool]:
    """Return what says whether an interrupt asks the runs to stop, and tells the person that they do."""

    def asked() -> bool:
        if interrupt.signal is not None:
            output.say("stopping: the jobs save; Ctrl-C again kills them")
        return interrupt.signal is not None

    return asked


def _opened(member: Member, task: Task, stack: ExitStack, noted: dict[str, Any]) -> Begun | TaskResult:
    """Begin a run; one that cannot be begun harms no other."""
    began = time.monotonic()

    def begin() -> Open:
        if not member.resumed:
            work.write(member.folder, member.job.config, member.job.overrides)
        context = opened(member.built, member.folder, resumed=member.resumed, noted=noted)
        return stack.enter_context(context)

    with _heard(task):
        kind, content, told = attempt(begin)
        if kind != "value":
            return task_result(task, kind, content, told, seconds=time.monotonic() - began)
        presentation.announce(content.built, content.folder, start=content.state.step)
    return Begun(task, content, began)


def _ended(begun: Begun, error: Exception | None, interrupt: Interrupt) -> TaskResult:
    """Finish a run whose training has ended, or write down how it did."""

    def end() -> dict[str, Any]:
        with ended(begun.run, interrupt):
            if error is not None:
                raise error
            return completed(begun.run, interrupt).to_dict()

    with _heard(begun.task):
        kind, content, told = attempt(end)
    if kind == "error" and isinstance(content, KeyboardInterrupt):
        kind, content = "exit", 130
    return task_result(begun.task, kind, content, told, seconds=time.monotonic() - begun.began)


@contextmanager
def _heard(task: Task) -> Iterator[None]:
    with output.isolated(), printed_to(task.log), output.tee(task.log):
        yield
