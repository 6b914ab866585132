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
from dlrun.sweeps import place as begin
from dlrun.sweeps.conductor import Conductor, check_settings
from dlrun.sweeps.expand import Expansion
from dlrun.sweeps.finish import finish
from dlrun.sweeps.jobs import Candidate, Definer
from dlrun.sweeps.place import Place


class Launcher(Protocol):
    """What is read of the launcher that asks."""

    hydra_context: HydraContext
    config: DictConfig


class SweepTask:
    """A context around Hydra's sweeper: jobs are conducted as they are launched, `finish` is its end."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._definer = Definer()
        self._expansion: Expansion | None = None
        self._conductor: Conductor | None = None
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
        return self._conductor is not None

    def conduct_sweep(
        self, launcher: Launcher, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Run a job for each list of overrides; all are checked before the first starts."""
        if self._conductor is not None and not self.place.continued:
            self.extend(launcher, job_overrides)
        conductor = self._conductor or self.begin(launcher, job_overrides)
        if conductor is None:
            return []
        due = conductor.due()
        conductor.run(due, count=len(due))
        found = {result.job.n: result for result in conductor.results()}
        return [_returned(found[n], overrides) for n, overrides in enumerate(job_overrides, initial_job_idx)]

    def begin(self, launcher: Launcher, job_overrides: Sequence[Sequence[str]]) -> Conductor | None:
        """Return the conductor of the sweep with these jobs, or of the one that is continued with the jobs it has.

        None where nothing is left to do. Raises `UserError` for everything that is wrong with any job.
        """
        if self.place.continued:
            if not begin.is_over(self.place.sweep):
                self._conductor = self._stack.enter_context(continued(self.place.sweep, hydra=launcher.config.hydra))
            return self._conductor
        jobs = self._jobs(launcher, job_overrides, 0)
        check_settings(launcher.config.hydra.launcher, jobs)
        what = begin.new(self.place, master=launcher.config, jobs=jobs, definer=self._definer)
        conductor = Conductor(self.place.sweep, what, launcher.config.hydra, seconds=self._definer.seconds)
        self._conductor = self._stack.enter_context(conductor)
        return conductor

    def extend(self, launcher: Launcher, job_overrides: Sequence[Sequence[str]]) -> list[Job]:
        """Return further jobs, checked and in the manifest: a search adds them as it goes."""
        assert self._conductor is not None
        what = self._conductor.what
        jobs = self._jobs(launcher, job_overrides, len(what.jobs))
        self._conductor.write(what.extended(jobs))
        return jobs

    def take(self, conductor: Conductor) -> Conductor:
        """Return the conductor of a sweep that a search has begun itself, entered: `finish` will end it."""
        self._conductor = self._stack.enter_context(conductor)
        return conductor

    def finish(self) -> int:
        """Choose, test and report, once the sweeper has asked for its last job; return the exit code."""
        if self._conductor is not None:
            return finish(self._conductor)
        return _code(self.place.sweep)

    def _jobs(self, launcher: Launcher, job_overrides: Sequence[Sequence[str]], first: int) -> list[Job]:
        if self._expansion is None:
            self._expansion = Expansion(launcher.hydra_context.config_loader, launcher.config)
        expansion = self._expansion
        return self._definer.jobs(
            [
                Candidate(n, expansion.own(overrides), expansion.config(overrides, n))
                for n, overrides in enumerate(job_overrides, first)
            ]
        )


class Listing:
    """What Hydra's sweeper and launcher are given where a sweep's jobs are looked at and not run."""

    begun = False

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []

    def __call__(self, config: DictConfig) -> Any:
        """Refuse a single job, as `SweepTask` does."""
        raise RunError("Only dlrun's own launchers list the jobs of a sweep.")

    def conduct_sweep(
        self, launcher: Launcher, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Keep each job's configuration."""
        expansion = Expansion(launcher.hydra_context.config_loader, launcher.config)
        self.candidates += [
            Candidate(n, expansion.own(overrides), expansion.config(overrides, n))
            for n, overrides in enumerate(job_overrides, initial_job_idx)
        ]
        return []


def continued(sweep: SweepDir, *, retry_failed: bool = False, hydra: DictConfig | None = None) -> Conductor:
    """Return the conductor of a sweep that was begun before, from its folder alone but for Hydra's part if given.

    Raises `UserError` if another process conducts it, or if its jobs would not be what they were.
    """
    what = manifest.read(sweep)
    trusted = {"trusted": trust.granted()}
    what = replace(what, jobs=tuple(replace(job, config=job.config | trusted) for job in what.jobs))
    with sweep.held():
        begin.tell_continued(sweep, what, retry_failed=retry_failed)
    definer = begin.check_unchanged(sweep, what)
    return Conductor(sweep, what, hydra or begin.hydra_of(sweep), seconds=definer.seconds)


def resume(sweep: SweepDir, *, retry_failed: bool = False) -> int:
    """Run what a sweep has left to do, from its folder alone; return the exit code."""
    if begin.is_over(sweep, retry_failed=retry_failed):
        return _code(sweep)
    with continued(sweep, retry_failed=retry_failed) as conductor:
        due = conductor.due(retry_failed=retry_failed)
        conductor.run(due, count=len(due))
        return finish(conductor)


def _code(sweep: SweepDir) -> int:
    return 0 if sweep.status() == "finished" else 1


def _returned(result: Result, overrides: Sequence[str]) -> JobReturn:
    """Return what Hydra's sweepers expect of a job."""
    done = result.status == "finished"
    value = result.summary if done else RunError(f"{result.status}: {result.summary.get('error')}")
    return JobReturn(
        overrides=list(overrides),
        cfg=None,  # no sweeper reads it, and to make it takes as long as a small job
        working_dir=str(result.run.path),
        status=JobStatus.COMPLETED if done else JobStatus.FAILED,
        _return_value=value,
    )
