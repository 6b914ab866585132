"""The course of a sweep's jobs, however they are carried out: what each task is, and what follows from its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from dlrun.storage.manifest import Job
from dlrun.storage.results import Result
from dlrun.storage.rundir import RunDir
from dlrun.sweeps.pool import any_hydra_app
from dlrun.sweeps.pool.display import Display, failure
from dlrun.sweeps.pool.task import Outcome, Task

if TYPE_CHECKING:
    from dlrun.sweeps.conductor import Conductor

INTERRUPTED = ("exited with code 130", "exited with code 143")
"""How jobs end that were asked to stop and have saved."""


class Course:
    """Makes tasks of jobs and takes their outcomes: shown, written down where a job could not, and told.

    `told` is given each result as it comes, and returns False to have no further job started.
    """

    def __init__(
        self,
        conductor: Conductor,
        *,
        count: int,
        on_failure: str,
        told: Callable[[Result], bool],
        tick: Callable[[], None],
    ) -> None:
        self.stopped = False
        self._conductor = conductor
        self._known: dict[int, Job] = {}
        self._display = Display(count, conductor.what.monitor)
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
        return self._conductor.task(job, noted)

    def done(self, outcome: Outcome) -> bool:
        """Take an outcome; return whether further jobs are to be started."""
        job = self._known[outcome.key]
        _settle(self._conductor.sweep.job(job.n), job, outcome)
        self._display.ended(outcome)
        goes_on = self._told(self._conductor.result(job)) and (self._goes_on or not failure(outcome))
        self.stopped = self.stopped or not goes_on
        return goes_on

    def shown(self, running: int | None = None, doing: str = "", *, lasting: bool = False) -> None:
        """Show how far the jobs are: how many run, if not those of the pool, and what they are doing."""
        self._tick()
        self._display.tick(self._conductor.running if running is None else running, doing, lasting=lasting)


def _settle(folder: RunDir, job: Job, outcome: Outcome) -> None:
    """Write down the status of a job whose process could not."""
    if outcome.error is None:
        return
    summary = folder.summary()
    status = folder.status() if summary else None
    if outcome.told.startswith("exited") and outcome.told not in INTERRUPTED:
        folder.update(status="failed", error=outcome.told)
    elif status is None or status == "finished":
        killed = outcome.told.startswith("killed") or outcome.told in INTERRUPTED
        folder.update(
            status="killed" if killed else "failed", name=job.config["name"], seed=job.seed, error=outcome.told
        )
    elif not summary.get("error"):
        folder.update(error=outcome.told)
