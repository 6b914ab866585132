"""The course of a sweep's jobs, however they are carried out: what each task is, and what follows from its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from dlrun.storage.manifest import Job
from dlrun.storage.results import Result
from dlrun.storage.rundir import RunDir
from dlrun.sweeps.pool import any_hydra_app
from dlrun.sweeps.pool.display import Display, failure
from dlrun.sweeps.pool.task import Task, TaskResult

if TYPE_CHECKING:
    from dlrun.sweeps.runner import SweepRunner

INTERRUPTED = ("exited with code 130", "exited with code 143")
"""How jobs end that were asked to stop and have saved."""


class JobEvents:
    """Makes tasks of jobs and takes their outcomes: shown, written down where a job could not, and told.

    `told` is given each result as it comes, and returns False to have no further job started.
    """

    def __init__(
        self,
        runner: SweepRunner,
        *,
        count: int,
        on_failure: str,
        told: Callable[[Result], bool],
        tick: Callable[[], None],
    ) -> None:
        self.stopped = False
        self._runner = runner
        self._known: dict[int, Job] = {}
        self._display = Display(count, runner.manifest.monitor)
        self._goes_on = any_hydra_app.goes_on(on_failure)
        self._told = told
        self._tick = tick

    def tasks(self, jobs: Iterable[Job | None], **noted: str) -> Iterator[Task | None]:
        """Yield the task of each job, whose summary will say what is `noted`; None where there is none just now."""
        for job in jobs:
            yield None if job is None else self.task(job, **noted)

    def task(self, job: Job, **noted: str) -> Task:
        """Return the task of a job."""
        self._known[job.n] = job
        return self._runner.task(job, noted)

    def done(self, outcome: TaskResult) -> bool:
        """Take an outcome; return whether further jobs are to be started."""
        job = self._known[outcome.key]
        _settle(self._runner.sweep.job(job.n), job, outcome)
        self._display.ended(outcome)
        goes_on = self._told(self._runner.result(job)) and (self._goes_on or not failure(outcome))
        self.stopped = self.stopped or not goes_on
        return goes_on

    def shown(self, running: int | None = None, doing: str = "", *, lasting: bool = False) -> None:
        """Show how far the jobs are: how many run, if not those of the pool, and what they are doing."""
        self._tick()
        self._display.tick(self._runner.running if running is None else running, doing, lasting=lasting)


def _settle(folder: RunDir, job: Job, outcome: TaskResult) -> None:
    """Write down the status of a job whose process could not."""
    if outcome.error is None:
        return
    summary = folder.summary()
    status = folder.status() if summary else None
    if outcome.message.startswith("exited") and outcome.message not in INTERRUPTED:
        with folder.edit_summary() as summary:
            summary.status, summary.error = "failed", outcome.message
    elif status is None or status == "finished":
        killed = outcome.message.startswith("killed") or outcome.message in INTERRUPTED
        with folder.edit_summary() as summary:
            summary.status, summary.error = "killed" if killed else "failed", outcome.message
            summary.name, summary.seed = job.config["name"], job.seed
    elif not summary.error:
        with folder.edit_summary() as summary:
            summary.error = outcome.message
