"""The jobs of a sweep given to a scheduler, which may have them run on other machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from signal import SIGTERM, SIGUSR1

from dlrun.errors import ConfigError, Detached
from dlrun.runs.interrupt import Interrupt, exception_for
from dlrun.storage.files.waiting import pause
from dlrun.storage.jobs.job import Job
from dlrun.sweeps.cluster.answers import Answer, Exchange
from dlrun.sweeps.cluster.executor import Executor, Submitted
from dlrun.sweeps.cluster.node import NodeTask
from dlrun.sweeps.job_events import JobEvents
from dlrun.sweeps.pool.task import Task, TaskResult
from dlrun.sweeps.store import SweepStore
from dlrun.terminal import output
from dlrun.terminal.format import counted

TICK = 0.5
"""Seconds between two looks at the tasks."""

LATE = 10.0
"""Seconds that an answer may take to be seen: shared file systems remember for some that there was no such file."""

TRAIN, TEST = "train", "test"


@dataclass
class _Running:
    task: Task
    name: str
    submitted: Submitted
    ended: float | None = None


class ClusterRunner:
    """The `JobRunner` of schedulers.

    With `detach` the jobs of a list are submitted, and `Detached` is raised while some have not ended.
    """

    def __init__(self, store: SweepStore, executor: Executor, *, detach: bool = False) -> None:
        if detach and not executor.survives:
            raise ConfigError(
                f"hydra.launcher.detach=true: jobs of {executor.name} end with the command that has submitted them. "
                "Leave it out; hydra/launcher=slurm has it."
            )
        self._store, self._executor, self._detach = store, executor, detach
        self._exchange = Exchange(store.sweep)
        self._running: dict[int, _Running] = {}

    def going(self) -> Collection[int]:
        return self._found(TRAIN)

    def run(self, jobs: Iterable[Job | None], events: JobEvents, *, count: int) -> None:
        """Run the jobs: of a list all are submitted at once, of a search as many as the scheduler is to have."""
        listed = isinstance(jobs, Sequence)
        if self._detach and not listed:
            raise ConfigError(
                "hydra.launcher.detach=true: a search decides its trials as results come in. Leave it out."
            )
        # more than there are: that there is no further one is seen at once
        limit = count + 1 if listed and (self._executor.queues or self._detach) else self._executor.width
        tasks = events.tasks(jobs)
        self._work(TRAIN, tasks, limit=limit, on_result=events.take, on_tick=events.show)

    def run_tasks(
        self, tasks: Sequence[Task], *, on_result: Callable[[TaskResult], bool], on_tick: Callable[[int], None]
    ) -> None:
        limit = len(tasks) if self._executor.queues else self._executor.width
        self._work(TEST, tasks, limit=limit, on_result=on_result, on_tick=on_tick)

    def stop(self, n: int) -> None:
        if n in self._running:
            self._exchange.ask(self._running[n].name, SIGUSR1)

    def _work(
        self,
        kind: str,
        tasks: Iterable[Task | None],
        *,
        limit: int,
        on_result: Callable[[TaskResult], bool],
        on_tick: Callable[[int], None],
    ) -> None:
        queue, more = iter(tasks), True
        earlier = self._found(kind)
        running = self._running = dict[int, _Running]()
        with Interrupt() as interrupt:
            try:
                while True:
                    more = more and interrupt.signal is None and self._fill(kind, queue, earlier, limit)
                    for result in self._ended():
                        more = on_result(result) and more
                        if not more:
                            self._withdraw()
                    if not running and not more:
                        break
                    if self._detach and kind == TRAIN and not more and interrupt.signal is None:
                        raise self._detached()
                    self._obey(interrupt)
                    on_tick(len(running))
                    pause(TICK)
            except (KeyboardInterrupt, SystemExit):
                # a second signal
                for each in running.values():
                    each.submitted.kill()
                raise
            if interrupt.signal is not None:
                raise exception_for(interrupt.signal)

    def _fill(self, kind: str, queue: Iterator[Task | None], earlier: dict[int, Submitted], limit: int) -> bool:
        """Submit tasks up to the limit, together; returns False after the last."""
        new: list[Task] = []
        more = True
        while len(self._running) + len(new) < limit:
            try:
                task = next(queue)
            except StopIteration:
                more = False
                break
            if task is None:
                break
            if (found := earlier.pop(task.key, None)) is not None:
                self._running[task.key] = _Running(task, f"{kind}-{task.key}", found)
            else:
                new.append(task)
        if new:
            self._submit(kind, new)
        return more

    def _submit(self, kind: str, tasks: Sequence[Task]) -> None:
        names = [f"{kind}-{task.key}" for task in tasks]
        for name in names:
            self._exchange.prepare(name)
        calls = [
            NodeTask(task, self._exchange.answer(name), self._exchange.stop(name))
            for task, name in zip(tasks, names, strict=True)
        ]
        submitted = self._executor.submit(calls)
        self._exchange.record(self._executor.name, {n: each.id for n, each in zip(names, submitted, strict=True)})
        for task, name, each in zip(tasks, names, submitted, strict=True):
            self._running[task.key] = _Running(task, name, each)
        first, last = submitted[0].id, submitted[-1].id
        which = first if first == last else f"{first} … {last}"
        # Ray's are long numbers that nobody types
        shown = f" ({which})" if self._executor.survives else ""
        output.log(f"  submitted to {self._executor.name}: {counted(len(tasks), 'task')}{shown}")

    def _ended(self) -> Iterator[TaskResult]:
        """Free and yield the ended tasks."""
        for each in list(self._running.values()):
            answer = self._exchange.read_answer(each.name)
            if answer is None and not each.submitted.lives():
                each.ended = each.ended or time.monotonic()
                # once more: it may have answered between the two looks, on another machine
                answer = self._exchange.read_answer(each.name)
                if answer is None and time.monotonic() > each.ended + (LATE if self._executor.survives else 0):
                    answer = Answer({"kind": "exit", "code": -9, "message": each.submitted.why()})
            if answer is not None:
                del self._running[each.task.key]
                self._exchange.take(each.name)
                yield answer.result(each.task, self._store.sweep.job(each.task.key).summary().to_dict())

    def _obey(self, interrupt: Interrupt) -> None:
        """After a signal have all tasks save and end."""
        if interrupt.signal is None or not self._running:
            return
        waiting = self._withdraw()
        asked = [each for each in self._running.values() if not self._exchange.stop(each.name).exists()]
        for each in asked:
            self._exchange.ask(each.name, SIGTERM)
        if asked or waiting:
            who = f"{counted(len(asked), 'running job')} {'saves' if len(asked) == 1 else 'save'}" if asked else ""
            back = f"{counted(waiting, 'waiting job')} taken back" if waiting else ""
            again = "; Ctrl-C again kills them" if asked else ""
            output.say(f"stopping: {', '.join(filter(None, (who, back)))}{again}")

    def _withdraw(self) -> int:
        """Take back the tasks that wait; returns how many."""
        back = [key for key, each in self._running.items() if each.submitted.withdraw()]
        for key in back:
            del self._running[key]
        return len(back)

    def _found(self, kind: str) -> dict[int, Submitted]:
        found = {}
        for name, id in self._exchange.submissions(self._executor.name).items():
            began, _, number = name.partition("-")
            if began != kind or not number.isdecimal() or self._exchange.is_taken(name):
                continue
            submitted = self._executor.find(id)
            # an answer that nobody has taken counts too
            if submitted is not None and (self._exchange.answer(name).exists() or submitted.lives()):
                found[int(number)] = submitted
        return found

    def _detached(self) -> Detached:
        waiting, sweep = len(self._running), self._store.sweep
        verbs = "waits or runs" if waiting == 1 else "wait or run"
        return Detached(
            f"{waiting} of {counted(len(self._store.manifest.jobs), 'job')} {verbs} at {self._executor.name}: "
            f"{sweep.path}\n"
            f"  `dlrun runs --sweeps {sweep.id}` shows how far it is; the same command, or `dlrun resume {sweep.id}`, "
            "selects, tests and reports once they have ended"
        )
