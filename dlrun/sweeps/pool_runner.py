"""The jobs of a sweep in processes of their own, as the launcher `local` runs them; and its settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from dlrun.storage.jobs.job import Job
from dlrun.sweeps.job_events import JobEvents
from dlrun.sweeps.pool import any_hydra_app
from dlrun.sweeps.pool.slots import Slot, check_count, slots_for
from dlrun.sweeps.pool.task import Task, TaskResult
from dlrun.sweeps.store import SweepStore

if TYPE_CHECKING:
    from dlrun.sweeps.pool.pool import Pool


class PoolRunner:
    """The `JobRunner` of the launcher `local`: a process a job."""

    def __init__(self, store: SweepStore, launcher: DictConfig) -> None:
        self._store = store
        self._launcher = launcher
        self._pool: Pool | None = None

    def run(self, jobs: Iterable[Job | None], events: JobEvents, *, count: int) -> None:
        self._run(events.tasks(jobs), count, on_result=events.take, on_tick=events.show)

    def run_tasks(
        self, tasks: Sequence[Task], *, on_result: Callable[[TaskResult], bool], on_tick: Callable[[int], None]
    ) -> None:
        self._run(tasks, len(tasks), on_result=on_result, on_tick=on_tick)

    def stop(self, n: int) -> None:
        if self._pool is not None:
            self._pool.stop(n)

    def going(self) -> Collection[int]:
        # its jobs end with it
        return ()

    def slots(self, count: int) -> list[Slot]:
        """The slots of this machine for `count` jobs."""
        return slots_of(self._launcher, self._store.manifest.jobs, count)

    def _run(
        self,
        tasks: Iterable[Task | None],
        count: int,
        *,
        on_result: Callable[[TaskResult], bool],
        on_tick: Callable[[int], None],
    ) -> None:
        # not at the top: `batched` often needs no process at all
        from dlrun.sweeps.pool.pool import Pool

        with Pool(self.slots(count)) as pool:
            self._pool = pool
            try:
                pool.run(tasks, on_result=on_result, on_tick=on_tick)
            finally:
                self._pool = None


def check_settings(launcher: DictConfig, jobs: Sequence[Job]) -> None:
    """Raise `ConfigError` for invalid settings of a launcher."""
    any_hydra_app.keeps_going(launcher.get("on_failure", "continue"))
    slots_of(launcher, jobs, len(jobs))
    check_count("verify", launcher.get("verify", 0), least=0)


def slots_of(launcher: DictConfig, jobs: Sequence[Job], count: int) -> list[Slot]:
    """The slots for `count` of these jobs."""
    trainers = [job.config["trainer"] for job in jobs]
    devices = dict.fromkeys(str(trainer["device"]) for trainer in trainers)
    threads = [trainer["threads"] for trainer in trainers if trainer["threads"]]
    return slots_for(
        max(1, count),
        # one job that is not for the CPU is enough to take GPUs
        device=next((name for name in devices if name != "cpu"), "cpu"),
        jobs_per_gpu=launcher.get("jobs_per_gpu", 1),
        slots=launcher.get("slots"),
        threads=launcher.get("threads") or max(threads, default=None),
    )
