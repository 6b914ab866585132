"""What happens as jobs run, wherever they run: tasks are made, results shown and recorded, callbacks called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from omegaconf import DictConfig

from dlrun.storage.jobs.job import Job
from dlrun.storage.machine import Machine, inspect
from dlrun.storage.results import Result
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps import run_job
from dlrun.sweeps.pool.display import Display, is_failure
from dlrun.sweeps.pool.task import Task, TaskResult
from dlrun.sweeps.store import SweepStore


@dataclass(frozen=True)
class JobTasks:
    """Makes jobs' tasks; `hydra` is Hydra's part of the configuration."""

    sweep: SweepDir
    hydra: DictConfig
    machine: Machine = field(default_factory=inspect)

    def __call__(self, job: Job, extra: Mapping[str, str]) -> Task:
        """The task of a job, with `extra` for its summary."""
        folder = self.sweep.job(job.n)
        context = run_job.JobContext(self.machine, extra)
        hydra = self.hydra if run_job.needs_hydra(self.hydra) else None
        call = partial(run_job.go_on, folder, job.config, job.overrides, hydra=hydra, context=context)
        return Task(job.n, call, job.label, folder.log)


class JobEvents:
    """Makes the tasks of a `JobRunner`, and takes their results.

    `on_result` gets each job's result and returns False to have no further job started; `on_tick` is called
    every 0.25 s. `keep_going` is False if the first failure ends the sweep.
    """

    def __init__(
        self,
        store: SweepStore,
        make_task: JobTasks,
        *,
        count: int,
        keep_going: bool = True,
        on_result: Callable[[Result], bool] = lambda _: True,
        on_tick: Callable[[], None] = lambda: None,
    ) -> None:
        self.stopped = False
        self._store = store
        self._make_task = make_task
        self._jobs: dict[int, Job] = {}
        self._display = Display(count, store.manifest.monitor)
        self._keep_going = keep_going
        self._on_result = on_result
        self._on_tick = on_tick

    def tasks(self, jobs: Iterable[Job | None], **extra: str) -> Iterator[Task | None]:
        """The tasks of jobs; None for None."""
        for job in jobs:
            yield None if job is None else self.task(job, **extra)

    def task(self, job: Job, **extra: str) -> Task:
        """The task of one job, with `extra` for its summary."""
        self._jobs[job.n] = job
        return self._make_task(job, extra)

    def take(self, result: TaskResult) -> bool:
        """Record a result; returns False to start no more jobs."""
        job = self._jobs[result.key]
        write_status(self._store.sweep.job(job.n), job, result)
        self._display.show_result(result)
        # the call first: `on_result` gets failures too
        more = self._on_result(self._store.result(job)) and (self._keep_going or not is_failure(result))
        self.stopped = self.stopped or not more
        return more

    def show(self, running: int, doing: str = "", *, lasting: bool = False) -> None:
        """Update the live line; a `lasting` one is logged too."""
        self._on_tick()
        self._display.show(running, doing, lasting=lasting)


def write_status(folder: RunDir, job: Job, result: TaskResult) -> None:
    """Write a job's status if its own process could not."""
    if result.error is None:
        return
    # a job that ends as it starts has made none
    folder.path.mkdir(exist_ok=True)
    summary = folder.summary()
    status = folder.status() if summary else None
    code = result.exit_code
    if code is not None and code >= 0 and not result.interrupted:
        # `sys.exit` in the user's code: the run took it for an interrupt, and wrote `killed`
        with folder.edit_summary() as summary:
            summary.status, summary.error = "failed", result.message
    elif status is None or status == "finished":
        # it ended before its first word, or after its last: only this process knows how
        killed = result.interrupted or (code is not None and code < 0)
        with folder.edit_summary() as summary:
            summary.status, summary.error = "killed" if killed else "failed", result.message
            # an empty summary lacks these too
            summary.name, summary.seed = job.config["name"], job.seed
    elif not summary.error:
        # it wrote how it ended, but not why
        with folder.edit_summary() as summary:
            summary.error = result.message
