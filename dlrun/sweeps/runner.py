"""Runs one sweep: holds its folder, starts its uploader, and has its jobs run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from omegaconf import DictConfig

from dlrun import tracking
from dlrun.errors import Detached, UserError
from dlrun.execution.device import gpus_elsewhere
from dlrun.storage.files.opening import open_log
from dlrun.storage.jobs.job import Job
from dlrun.storage.results import Result
from dlrun.sweeps.job_events import JobEvents, JobTasks
from dlrun.sweeps.plugins import JobRunner, gives_gpus, makes_job_runner
from dlrun.sweeps.pool.any_hydra_app import keeps_going
from dlrun.sweeps.pool.task import Task, TaskResult, one_line
from dlrun.sweeps.store import SweepStore
from dlrun.terminal import output


class SweepRunner:
    """Holds one sweep as a context, and runs its jobs.

    `hydra` is Hydra's part of the configuration.
    """

    def __init__(self, store: SweepStore, jobs: JobRunner, hydra: DictConfig) -> None:
        self.store = store
        self.uploader: tracking.Uploader | None = None
        self._jobs = jobs
        self._make_task = JobTasks(store.sweep, hydra)
        self._keep_going = keeps_going(hydra.launcher.get("on_failure", "continue"))
        self._hydra = hydra
        self._stack = ExitStack()

    def __enter__(self) -> SweepRunner:
        with ExitStack() as stack:
            # for the jobs that a search checks as it goes
            stack.enter_context(gpus_elsewhere(gives_gpus(self._hydra.launcher)))
            # held first: only one process writes the log and the summary
            stack.enter_context(self.store.sweep.hold())
            stack.enter_context(output.tee(open_log(self.store.sweep.log)))
            self.store.open()
            if self.store.unsent is not None:
                self.uploader = tracking.start(self.store.sweep)
            # from here on __exit__ closes them; a failure above has closed them already
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Detached):
            self.store.close("submitted")
        elif error is not None:
            killed = isinstance(error, KeyboardInterrupt | SystemExit)
            self.store.close("killed" if killed else "failed", one_line(error))
            if killed:
                output.say(f"stopped; `dlrun resume {self.store.sweep.id}` goes on from there")
        self._stack.close()

    def due(self, *, retry_failed: bool = False) -> list[Job]:
        """The jobs to start, resume or follow."""
        return self.store.due(retry_failed=retry_failed, going=self._jobs.going())

    def run(
        self,
        jobs: Iterable[Job | None],
        *,
        count: int,
        on_result: Callable[[Result], bool] = lambda _: True,
        on_tick: Callable[[], None] = lambda: None,
    ) -> bool:
        """Run jobs as `JobRunner.run` does, with the callbacks of `JobEvents`; False if a failure has ended it."""
        events = JobEvents(
            self.store,
            self._make_task,
            count=count,
            keep_going=self._keep_going,
            on_result=on_result,
            on_tick=on_tick,
        )
        self._jobs.run(jobs, events, count=count)
        return not events.stopped

    def run_tasks(
        self, tasks: Sequence[Task], *, on_result: Callable[[TaskResult], bool], on_tick: Callable[[int], None]
    ) -> None:
        self._jobs.run_tasks(tasks, on_result=on_result, on_tick=on_tick)

    def stop(self, n: int) -> None:
        self._jobs.stop(n)


def sweep_runner(store: SweepStore, hydra: DictConfig) -> SweepRunner:
    """The runner of a sweep with the configured launcher.

    Raises `UserError` for a launcher that cannot run the sweeps of dlrun.
    """
    launcher = makes_job_runner(hydra.launcher)
    if launcher is None:
        raise UserError(
            f"{hydra.launcher._target_} cannot run this sweep: type hydra/launcher=local or hydra/launcher=batched."
        )
    return SweepRunner(store, launcher.job_runner(store, hydra), hydra)
