"""What Hydra's sweeper and launcher are given for a sweep of dlrun's own runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Protocol

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig

from dlrun.config import trust
from dlrun.errors import RunError
from dlrun.storage import manifest
from dlrun.storage.manifest import Job
from dlrun.storage.results import Result
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps import location
from dlrun.sweeps.expand import Expansion
from dlrun.sweeps.finish import finish
from dlrun.sweeps.jobs import ComposedJob, JobBuilder
from dlrun.sweeps.location import SweepLocation
from dlrun.sweeps.runner import SweepRunner, check_settings


class Launcher(Protocol):
    """What is read of the launcher that asks."""

    hydra_context: HydraContext
    config: DictConfig


class SweepTask:
    """A context around Hydra's sweeper: jobs are conducted as they are launched, `finish` is its end."""

    def __init__(self, place: SweepLocation) -> None:
        self.place = place
        self._builder = JobBuilder()
        self._expansion: Expansion | None = None
        self._runner: SweepRunner | None = None
        self._stack = ExitStack()

    def __enter__(self) -> SweepTask:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    def __call__(self, config: DictConfig) -> Any:
        """Refuse a single job: Hydra calls a task so, and dlrun's launchers do not."""
        raise RunError("Only dlrun's own launchers conduct a sweep of dlrun.")

    @property
    def begun(self) -> bool:
        """Return whether jobs have been conducted."""
        return self._runner is not None

    def conduct_sweep(
        self, launcher: Launcher, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Run a job for each list of overrides; all are checked before the first starts."""
        if self._runner is not None and not self.place.continued:
            self.extend(launcher, job_overrides)
        runner = self._runner or self.begin(launcher, job_overrides)
        if runner is None:
            return []
        due = runner.due()
        runner.run(due, count=len(due))
        found = {result.job.n: result for result in runner.results()}
        return [_returned(found[n], overrides) for n, overrides in enumerate(job_overrides, initial_job_idx)]

    def begin(self, launcher: Launcher, job_overrides: Sequence[Sequence[str]]) -> SweepRunner | None:
        """Return the runner of the sweep with these jobs, or of the one that is continued with the jobs it has.

        None where nothing is left to do. Raises `UserError` for everything that is wrong with any job.
        """
        if self.place.continued:
            if not location.is_over(self.place.sweep):
                self._runner = self._stack.enter_context(continued(self.place.sweep, hydra=launcher.config.hydra))
            return self._runner
        jobs = self._jobs(launcher, job_overrides, 0)
        check_settings(launcher.config.hydra.launcher, jobs)
        what = location.create(self.place, master=launcher.config, jobs=jobs, builder=self._builder)
        runner = SweepRunner(self.place.sweep, what, launcher.config.hydra)
        self._runner = self._stack.enter_context(runner)
        return runner

    def extend(self, launcher: Launcher, job_overrides: Sequence[Sequence[str]]) -> list[Job]:
        """Return further jobs, checked and in the manifest: a search adds them as it goes."""
        assert self._runner is not None
        what = self._runner.manifest
        jobs = self._jobs(launcher, job_overrides, len(what.jobs))
        self._runner.write(what.extended(jobs))
        return jobs

    def take(self, runner: SweepRunner) -> SweepRunner:
        """Return the runner of a sweep that a search has begun itself, entered: `finish` will end it."""
        self._runner = self._stack.enter_context(runner)
        return runner

    def finish(self) -> int:
        """Choose, test and report, once the sweeper has asked for its last job; return the exit code."""
        if self._runner is not None:
            return finish(self._runner)
        return _code(self.place.sweep)

    def _jobs(self, launcher: Launcher, job_overrides: Sequence[Sequence[str]], first: int) -> list[Job]:
        if self._expansion is None:
            self._expansion = Expansion(launcher.hydra_context.config_loader, launcher.config)
        expansion = self._expansion
        return self._builder.jobs(
            [
                ComposedJob(n, expansion.own(overrides), expansion.config(overrides, n))
                for n, overrides in enumerate(job_overrides, first)
            ]
        )


class Listing:
    """What Hydra's sweeper and launcher are given where a sweep's jobs are looked at and not run."""

    begun = False

    def __init__(self) -> None:
        self.candidates: list[ComposedJob] = []

    def __call__(self, config: DictConfig) -> Any:
        """Refuse a single job, as `SweepTask` does."""
        raise RunError("Only dlrun's own launchers list the jobs of a sweep.")

    def conduct_sweep(
        self, launcher: Launcher, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Keep each job's configuration."""
        expansion = Expansion(launcher.hydra_context.config_loader, launcher.config)
        self.candidates += [
            ComposedJob(n, expansion.own(overrides), expansion.config(overrides, n))
            for n, overrides in enumerate(job_overrides, initial_job_idx)
        ]
        return []


def continued(sweep: SweepDir, *, retry_failed: bool = False, hydra: DictConfig | None = None) -> SweepRunner:
    """Return the runner of a sweep that was begun before, from its folder alone but for Hydra's part if given.

    Raises `UserError` if another process conducts it, or if its jobs would not be what they were.
    """
    what = manifest.read(sweep)
    trusted = {"trusted": trust.trusted_names()}
    what = replace(what, jobs=tuple(replace(job, config=job.config | trusted) for job in what.jobs))
    with sweep.hold():
        location.tell_continued(sweep, what, retry_failed=retry_failed)
    location.check_unchanged(sweep, what)
    return SweepRunner(sweep, what, hydra or location.hydra_of(sweep))


def resume(sweep: SweepDir, *, retry_failed: bool = False) -> int:
    """Run what a sweep has left to do, from its folder alone; return the exit code."""
    if location.is_over(sweep, retry_failed=retry_failed):
        return _code(sweep)
    with continued(sweep, retry_failed=retry_failed) as runner:
        due = runner.due(retry_failed=retry_failed)
        runner.run(due, count=len(due))
        return finish(runner)


def _code(sweep: SweepDir) -> int:
    return 0 if sweep.status() == "finished" else 1


def _returned(result: Result, overrides: Sequence[str]) -> JobReturn:
    """Return what Hydra's sweepers expect of a job."""
    done = result.status == "finished"
    value = result.summary.to_dict() if done else RunError(f"{result.status}: {result.summary.error}")
    return JobReturn(
        overrides=list(overrides),
        cfg=None,  # no sweeper reads it, and to make it takes as long as a small job
        working_dir=str(result.run.path),
        status=JobStatus.COMPLETED if done else JobStatus.FAILED,
        _return_value=value,
    )
