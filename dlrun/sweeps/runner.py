"""A sweep's jobs on their way through the pool: which are due, how each is started, what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from dlrun import tracking
from dlrun.storage import machine
from dlrun.storage.files import wait_until
from dlrun.storage.manifest import Job, Manifest
from dlrun.storage.results import Result, results
from dlrun.storage.summary import Status
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps import job as work
from dlrun.sweeps.batched import policy
from dlrun.sweeps.batched.shared_data import SharedData
from dlrun.sweeps.job_events import JobEvents
from dlrun.sweeps.pool import any_hydra_app, in_process
from dlrun.sweeps.pool.slots import Slot, counted, slots_for
from dlrun.sweeps.pool.task import GRACE, Task, TaskResult
from dlrun.terminal import output

if TYPE_CHECKING:
    from dlrun.sweeps.pool.pool import Pool


class SweepRunner:
    """A context in which one sweep is conducted: its folder is held, its uploader runs.

    `hydra` is Hydra's part of the sweep's configuration; its launcher's settings say how many jobs run
    at once.
    """

    def __init__(self, sweep: SweepDir, what: Manifest, hydra: DictConfig) -> None:
        self.sweep = sweep
        self.manifest = what
        self.uploader: Any = None
        self._hydra = hydra
        self._for_jobs = hydra if work.asks_hydra(hydra) else None
        self._stack = ExitStack()
        self._shared = SharedData()
        self._pool: Pool | None = None
        self._machine = machine.inspect()
        self._began = time.time()

    def __enter__(self) -> SweepRunner:
        with ExitStack() as stack:
            stack.enter_context(self.sweep.hold())
            stack.enter_context(output.tee(self.sweep.log))
            self._open()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            killed = isinstance(error, KeyboardInterrupt | SystemExit)
            told = f"{type(error).__name__}: {error}".removesuffix(": ")
            self.close("killed" if killed else "failed", told)
            if killed:
                output.say(f"stopped; `dlrun resume {self.sweep.id}` goes on from there")
        self._stack.close()

    def close(self, status: Status, error: str | None = None) -> None:
        """Write how the sweep ends into its summary."""
        with self.sweep.edit_summary() as summary:
            summary.status, summary.error = status, error
            summary.seconds = round(summary.seconds + time.time() - self._began, 3)

    def write(self, what: Manifest) -> None:
        """Put a manifest in the place of the one before: a search adds its jobs as it goes."""
        self.manifest = what
        what.write(self.sweep)

    def results(self) -> list[Result]:
        """Return what came of each job so far."""
        return results(self.sweep, self.manifest)

    def result(self, job: Job) -> Result:
        """Return what came of one job so far."""
        return results(self.sweep, replace(self.manifest, jobs=(job,)))[0]

    def due(self, *, retry_failed: bool = False) -> list[Job]:
        """Return the jobs that are yet to be run, to their end or at all."""
        again = ("missing", "killed", "failed") if retry_failed else ("missing", "killed")
        self._wait_for_the_dying()
        return [result.job for result in self.results() if result.status in again]

    def run(
        self,
        jobs: Iterable[Job | None],
        *,
        count: int,
        told: Callable[[Result], bool] = lambda _: True,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Run jobs, `count` at most, each pulled from `jobs` when a slot is free: in a process of its own, or here.

        None among the jobs: there is none just now. `told` is given each result as it comes, and returns
        False to have no further job started. Raises `KeyboardInterrupt` or `SystemExit` after an interrupt.
        """
        launcher = self._hydra.launcher
        course = JobEvents(self, count=count, on_failure=launcher.get("on_failure", "continue"), told=told, tick=tick)
        if policy.stacks(launcher):
            jobs = self._batched(jobs, course)
        if not (course.stopped or (isinstance(jobs, list) and not jobs)):
            self.carry_out(course.tasks(jobs), count=count, done=course.done, tick=course.shown)

    def _batched(self, jobs: Iterable[Job | None], course: JobEvents) -> Iterable[Job | None]:
        """Run in this process what can be run here; return the jobs that get processes of their own."""
        if not isinstance(jobs, Sequence):
            output.say("batched: a search runs its jobs as hydra/launcher=local does: it looks at them while they run")
            return jobs
        from dlrun.sweeps.batched.runner import BatchedRunner

        due = [self.result(job) for job in jobs if job is not None]
        slots = slots_of(self._hydra.launcher, self.manifest.jobs, len(due))
        return BatchedRunner(self.sweep, self._hydra, slots, load=self._shared).run(due, course)

    @property
    def running(self) -> int:
        """How many jobs run now; without the pool they run one after another."""
        return self._pool.running if self._pool else 1

    def carry_out(
        self,
        tasks: Iterable[Task | None],
        *,
        count: int,
        done: Callable[[TaskResult], bool],
        tick: Callable[[], None] = lambda: None,
        here: bool = False,
    ) -> None:
        """Carry tasks out on the slots of this machine: in processes of their own, or one after another `here`.

        Here the tasks, which are of jobs, share their data.
        """
        slots = slots_of(self._hydra.launcher, self.manifest.jobs, count)
        if here:
            with in_process.hold(slots) as slot:
                in_process.run(map(self._shared.share, filter(None, tasks)), slot, done=done, tick=tick)
            return
        with _pool(slots) as pool:
            self._pool = pool
            try:
                pool.run(tasks, done=done, tick=tick)
            finally:
                self._pool = None

    def stop(self, n: int) -> None:
        """Ask a job that runs to stop at its next step, saved: it becomes `pruned`."""
        if self._pool is not None:
            self._pool.stop(n)

    def _open(self) -> None:
        unsent = tracking.unsent(job.config for job in self.manifest.jobs)
        with self.sweep.edit_summary() as summary:
            summary.status, summary.error = "running", None
            summary.name, summary.command = self.manifest.name, self.manifest.command
            summary.started = summary.started or self.manifest.created
            summary.mlflow_run_id = summary.mlflow_run_id
            summary.uploaded = unsent
        if unsent is not None:
            self.uploader = tracking.start(self.sweep)

    def task(self, job: Job, noted: Mapping[str, str]) -> Task:
        """Return the task of a job, begun anew or gone on with; what is `noted` its summary will say."""
        folder = self.sweep.job(job.n)
        known = work.Known(self._machine, noted)
        begun = folder.config.exists() and folder.journal.exists()
        first = partial(work.start, folder, job.config, job.overrides, hydra=self._for_jobs, known=known)
        return Task(job.n, partial(work.go_on, folder, known) if begun else first, label(job), folder.log)

    def _wait_for_the_dying(self) -> None:
        """Wait for the jobs of a runner that was killed: each saves, and then ends."""
        folders = [self.sweep.job(job.n) for job in self.manifest.jobs]
        if any(folder.alive() for folder in folders):
            output.say("waiting for the jobs of the launcher that was killed: they save and end")
            wait_until(lambda: not any(folder.alive() for folder in folders), GRACE + 5)


def _pool(slots: Sequence[Slot]) -> Pool:
    from dlrun.sweeps.pool.pool import Pool  # what it takes to talk to processes, which jobs in this one need not

    return Pool(slots)


def check_settings(launcher: DictConfig, jobs: Sequence[Job]) -> None:
    """Raise `ConfigError` for what the launcher's own keys must not be, before anything is made."""
    any_hydra_app.goes_on(launcher.get("on_failure", "continue"))
    slots_of(launcher, jobs, len(jobs))
    counted("verify", launcher.get("verify", 0), least=0)


def slots_of(launcher: DictConfig, jobs: Sequence[Job], count: int) -> list[Slot]:
    """Return the slots for `count` jobs, as the launcher's settings and the jobs' own devices and threads ask for."""
    trainers = [job.config["trainer"] for job in jobs]
    devices = dict.fromkeys(str(trainer["device"]) for trainer in trainers)
    asked = [trainer["threads"] for trainer in trainers if trainer["threads"]]
    return slots_for(
        max(1, count),
        device=next((name for name in devices if name != "cpu"), "cpu"),
        jobs_per_gpu=launcher.get("jobs_per_gpu", 1),
        slots=launcher.get("slots"),
        threads=launcher.get("threads") or (max(asked) if asked else None),
    )


def label(job: Job) -> str:
    """Return a job's overrides, the seed among them, as a person reads them."""
    return " ".join(override.lstrip("+") for override in job.overrides) or str(job.config["name"])


def reuse(sweep: SweepDir, jobs: Sequence[Job], others: Iterable[tuple[SweepDir, Manifest]]) -> int:
    """Have what other sweeps have finished stand for those of `jobs` that are the same; return how many there are."""
    wanted: dict[str, list[Job]] = {}
    for job in jobs:
        wanted.setdefault(job.identity, []).append(job)
    count = 0
    for other, what in others:
        for job in what.jobs:
            if job.identity not in wanted:
                continue
            run = other.run(job.n)
            # asked of the run too: a job that was made longer by itself is another one
            same = run.summary().identity == job.identity
            if same and run.status() == "finished" and run.best.exists():
                for wanting in wanted.pop(job.identity):
                    sweep.reuse(wanting.n, run)
                    count += 1
    return count
