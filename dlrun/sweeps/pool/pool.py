"""Jobs in processes of their own, as many at once as there are slots.

Whatever a job does to its process (`sys.exit`, a segmentation fault, SIGKILL) becomes a `TaskResult` and harms no
other job. The first Ctrl-C or SIGTERM asks all jobs to save and end, the second kills them.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import cloudpickle

from dlrun.errors import RunError
from dlrun.runs.interrupt import noted
from dlrun.sweeps.pool import fork_server
from dlrun.sweeps.pool.slots import Slot, SlotLock, lock
from dlrun.sweeps.pool.task import GRACE, Task, TaskResult, task_result
from dlrun.sweeps.pool.worker import WorkerSettings, work
from dlrun.terminal import output

TICK = 0.25
"""Seconds between two calls of `on_tick`."""


@dataclass
class _Running:
    task: Task
    slot: Slot
    process: BaseProcess
    answer: Connection
    place: SlotLock
    started: float
    message: bytes | None = None
    answered: float | None = None
    orphan: fork_server.Orphan | None = None

    def kill(self, number: int) -> None:
        """Send a signal; SIGKILL goes to the children too."""
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, number)
            os.kill(self.process.pid, number)


class Pool:
    """Runs tasks on slots, within its context."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._free = list(slots)
        self._running: dict[int, _Running] = {}
        self._next: Task | None = None
        self._signals: list[int] = []
        self._obeyed = 0
        self._waits = False
        self._context = fork_server.context()

    def __enter__(self) -> Pool:
        fork_server.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def stop(self, key: int, number: int = signal.SIGUSR1) -> None:
        """Send a signal to one job; SIGUSR1 prunes it."""
        if key in self._running:
            self._running[key].kill(number)

    def run(
        self,
        tasks: Iterable[Task | None],
        *,
        on_result: Callable[[TaskResult], bool],
        on_tick: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Run the tasks, each pulled when a slot is free.

        None among them means that there is none just now. `on_result` gets each result and returns False to have no
        further task started; `on_tick` gets the number of running jobs every 0.25 s. Raises `KeyboardInterrupt` or
        `SystemExit(143)` after an interrupt, when all jobs have ended.
        """
        queue, more = iter(tasks), True
        self._signals, self._obeyed = [], 0
        with self._catch_signals():
            try:
                while True:
                    more = more and not self._signals and self._fill(queue)
                    if not self._running and not more:
                        break
                    for job in self._wait_for_ends():
                        # the call first: each result is taken, also after the last task has started
                        more = on_result(_result(job)) and more
                    self._obey()
                    on_tick(len(self._running))
            except BaseException:
                self._end()
                raise
        if self._signals:
            raise SystemExit(128 + signal.SIGTERM) if self._signals[0] == signal.SIGTERM else KeyboardInterrupt

    def _fill(self, queue: Iterator[Task | None]) -> bool:
        """Start tasks in free slots; returns False after the last."""
        for slot in self._free[:]:
            # a task that found no free place is kept: the iterator cannot take it back
            if self._next is None:
                try:
                    self._next = next(queue)
                except StopIteration:
                    return False
            if self._next is None:
                break
            place = lock(slot)
            if place is None:  # another program's job has it: try the next slot
                continue
            self._free.remove(slot)
            self._start(self._next, slot, place)
            self._next = None
        self._say_waiting()
        return True

    def _say_waiting(self) -> None:
        if self._next is not None and not self._running and self._free and not self._waits:
            self._waits = True
            names = ", ".join(sorted({str(slot.device) for slot in self._free}))
            output.say(f"waiting for a GPU ({names}): other dlrun jobs of this machine have them all")

    def _start(self, task: Task, slot: Slot, place: SlotLock) -> None:
        settings = WorkerSettings(dict(os.environ), slot.device, slot.threads, task.log.absolute())
        call = cloudpickle.dumps(task.call)

        def start() -> tuple[BaseProcess, Connection]:
            receive, send = self._context.Pipe(duplex=False)
            # else this copy would keep the pipe open after the job's death
            with send:
                process: BaseProcess = self._context.Process(  # type: ignore[attr-defined]
                    target=work, args=(call, settings, send, place), name=task.label
                )
                with fork_server.clean_start():
                    process.start()
            return process, receive

        try:
            process, receive = start()
        except (EOFError, ConnectionError):
            # the fork server has died in the middle of it: the second time there is a new one
            process, receive = start()
        self._running[task.key] = _Running(task, slot, process, receive, place, time.monotonic())

    def _wait_for_ends(self) -> Iterator[_Running]:
        """Wait up to `TICK` seconds; free and yield ended jobs."""
        jobs = list(self._running.values())
        answers = [job.answer for job in jobs if job.answered is None]
        ready = wait([*answers, *(job.process.sentinel for job in jobs if job.orphan is None)], TICK)
        for job in jobs:
            gone = _is_gone(job, told=job.process.sentinel in ready)
            # poll, do not wait: a child that the job has left behind may hold the pipe open
            if job.answered is None and (job.answer in ready or (gone and job.answer.poll())):
                _receive(job)
            if gone:
                self._release(job)
                yield job
            elif job.answered is not None and time.monotonic() > job.answered + GRACE:
                job.kill(signal.SIGKILL)  # it has answered, but one of its threads does not end

    def _release(self, job: _Running) -> None:
        job.process.join()
        job.answer.close()
        job.place.release()
        del self._running[job.task.key]
        self._free.append(job.slot)
        # the lowest first: few jobs are spread over the GPUs as at the start
        self._free.sort(key=lambda slot: slot.index)

    @contextmanager
    def _catch_signals(self) -> Iterator[None]:
        """Collect SIGINT and SIGTERM in `self._signals`."""
        before: dict[int, Any] = {}
        # Python lets only the main thread set handlers
        if threading.current_thread() is threading.main_thread():
            before = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        # one that came before, and that a library swallowed, ends the pool too
        if early := noted(before.get(signal.SIGINT)):
            self._signals.append(early)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _obey(self) -> None:
        """Pass on the first interrupt; kill at the second."""
        if len(self._signals) > self._obeyed:
            # once: a second signal kills, and needs no words
            if self._obeyed == 0 and self._running:
                who = "1 running job saves" if len(self._running) == 1 else f"{len(self._running)} running jobs save"
                output.say(f"stopping: {who}; Ctrl-C again kills them")
            # SIGTERM for Ctrl-C too: jobs have a group of their own, which the terminal does not reach
            number = signal.SIGTERM if len(self._signals) == 1 else signal.SIGKILL
            self._obeyed = len(self._signals)
            for job in self._running.values():
                job.kill(number)

    def _end(self) -> None:
        """End the remaining jobs, killed after `GRACE` seconds."""
        for job in self._running.values():
            job.kill(signal.SIGTERM)
        limit = time.monotonic() + GRACE
        while self._running:
            for _ in self._wait_for_ends():
                pass
            if time.monotonic() > limit:
                for job in self._running.values():
                    job.kill(signal.SIGKILL)


def _is_gone(job: _Running, *, told: bool) -> bool:
    """Whether a job's process has ended; `told`: its sentinel says so."""
    if job.orphan is not None:
        return not job.orphan.lives()
    # the fork server tells of an end; when it dies it tells of all, and the jobs live on
    if told and job.process.pid is not None and job.process.exitcode == fork_server.SERVER_DIED:
        orphan = fork_server.Orphan(job.process.pid)
        if orphan.lives():
            job.orphan = orphan
            return False
    return told


def _receive(job: _Running) -> None:
    """Read a job's answer, if it has sent one."""
    job.answered = time.monotonic()
    # a pipe that ends without an answer: the process has died
    with suppress(EOFError, OSError):
        job.message = job.answer.recv_bytes()


def _result(job: _Running) -> TaskResult:
    seconds = time.monotonic() - job.started
    if job.message is None and job.orphan is not None:
        # how it ended is not known: its folder says it
        lost = RunError("it ended without a result, and its fork server had been killed")
        return task_result(job.task, "error", lost, str(lost), seconds=seconds)
    if job.message is None:
        return task_result(job.task, "exit", job.process.exitcode or 0, "", seconds=seconds)
    try:
        kind, content, message = pickle.loads(job.message)
    except Exception as error:
        kind, content, message = "error", RunError(f"The job's result cannot be read: {error}"), str(error)
    return task_result(job.task, kind, content, message, seconds=seconds)
