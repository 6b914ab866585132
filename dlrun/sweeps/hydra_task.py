"""A sweep of dlrun's own runs as Hydra's plugins see it: the task that sweepers and launchers are given."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig

from dlrun.config import trust
from dlrun.errors import RunError
from dlrun.execution.device import gpus_elsewhere
from dlrun.storage import manifest, run_config
from dlrun.storage.jobs.job import Job
from dlrun.storage.results import Result
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps import location
from dlrun.sweeps.decision import decide_on_request, read_state
from dlrun.sweeps.finish import finish
from dlrun.sweeps.jobs.builder import JobBuilder
from dlrun.sweeps.jobs.composed import ComposedJobs
from dlrun.sweeps.jobs.conditional import FittedJobs, fit
from dlrun.sweeps.jobs.expand import Expansion
from dlrun.sweeps.location import SweepLocation
from dlrun.sweeps.plugins import gives_gpus, makes_job_runner
from dlrun.sweeps.pool_runner import check_settings
from dlrun.sweeps.runner import SweepRunner, sweep_runner
from dlrun.sweeps.store import SweepStore
from dlrun.terminal import output


class Launcher(Protocol):
    """The attributes of a launcher that `SweepTask` reads."""

    hydra_context: HydraContext
    config: DictConfig


class SweepTask:
    """The task given to Hydra's sweeper, as a context.

    The sweeper's launcher calls `run_jobs`; `finish` ends the sweep.
    """

    def __init__(self, location: SweepLocation) -> None:
        self.location = location
        self._builder = JobBuilder()
        self._expansion: Expansion | None = None
        self._runner: SweepRunner | None = None
        self._stack = ExitStack()

    def __enter__(self) -> SweepTask:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    def __call__(self, config: DictConfig) -> Any:
        """Refuse: only Hydra's own launchers call a task."""
        raise RunError("Only dlrun's own launchers run a sweep of dlrun.")

    @property
    def started(self) -> bool:
        return self._runner is not None

    def run_jobs(
        self, launcher: Launcher, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Check all jobs, then run them."""
        fitted = fit(self._expand(launcher), job_overrides)
        if self._runner is not None and not self.location.resumed:
            # a further batch of Hydra's own sweeper, which has a `max_batch_size`
            self._runner.store.extend(self._jobs(launcher, fitted.jobs, initial_job_idx))
        runner = self._runner or self._start(launcher, fitted)
        if runner is None:
            return []
        due = runner.due()
        runner.run(due, count=len(due))
        results = {result.job.n: result for result in runner.store.results()}
        return [
            # a job that equals an earlier one has that one's result
            _job_return(results[self._builder.duplicates.get(n, n)], overrides)
            for overrides, place in zip(job_overrides, fitted.places, strict=True)
            for n in [initial_job_idx + place]
        ]

    def enter(self, runner: SweepRunner) -> SweepRunner:
        """Enter a runner, and keep it for `finish`."""
        self._runner = self._stack.enter_context(runner)
        return runner

    def finish(self) -> int:
        """Select, test and report; return the exit code."""
        return finish(self._runner) if self._runner is not None else exit_code(self.location.sweep)

    def _start(self, launcher: Launcher, fitted: FittedJobs) -> SweepRunner | None:
        """Start or resume the sweep; None if it is over."""
        sweep, hydra = self.location.sweep, launcher.config.hydra
        if self.location.resumed:
            if location.say_if_over(sweep):
                return None
            # the user has typed the command again: its references may be read
            trust.grant_environment(launcher.config)
            if len(manifest.read(sweep).jobs) < len(fitted.jobs):
                self._jobs(launcher, fitted.jobs, 0)  # finds the jobs that are listed twice
            return self.enter(resumed_runner(sweep, hydra=hydra))
        for line in fitted.left_out:
            output.say(line)
        jobs = self._jobs(launcher, fitted.jobs, 0)
        check_settings(hydra.launcher, jobs)
        # before there is a folder
        if (check := getattr(makes_job_runner(hydra.launcher), "check", None)) is not None:
            check(hydra.launcher)
        what = location.create(self.location, master=launcher.config, jobs=jobs, builder=self._builder)
        return self.enter(sweep_runner(SweepStore(sweep, what), hydra))

    def _jobs(self, launcher: Launcher, job_overrides: Sequence[Sequence[str]], first: int) -> list[Job]:
        return self._builder.jobs(ComposedJobs(self._expand(launcher), job_overrides, first))

    def _expand(self, launcher: Launcher) -> Expansion:
        if self._expansion is None:
            self._expansion = Expansion(launcher.hydra_context.config_loader, launcher.config)
        return self._expansion


def resumed_runner(sweep: SweepDir, *, retry_failed: bool = False, hydra: DictConfig | None = None) -> SweepRunner:
    """The runner of an earlier sweep, from its folder alone.

    `hydra` has newer settings of the launcher. Raises `UserError` if another process runs it, or if its jobs would
    differ now.
    """
    found = manifest.read(sweep)
    # what this user trusts, not what the folder says: it may come from somebody else
    trusted = {"trusted": trust.trusted_names()}
    found = replace(
        found,
        jobs=tuple(
            replace(job, config=run_config.located(job.config, sweep.job(job.n).path) | trusted) for job in found.jobs
        ),
    )
    # held for a moment: a sweep that another process runs is refused before its jobs are built again
    with sweep.hold():
        location.announce_resumed(sweep, found, retry_failed=retry_failed)
    hydra = hydra or location.saved_hydra(sweep)
    with gpus_elsewhere(gives_gpus(hydra.launcher)):
        location.check_unchanged(sweep, found)
    return sweep_runner(SweepStore(sweep, found), hydra)


def resume(sweep: SweepDir, *, retry_failed: bool = False) -> int:
    """Run the rest of a sweep; return the exit code."""
    if location.say_if_over(sweep, retry_failed=retry_failed):
        return exit_code(sweep)
    with resumed_runner(sweep, retry_failed=retry_failed) as runner:
        due = runner.due(retry_failed=retry_failed)
        runner.run(due, count=len(due))
        return finish(runner)


def select(sweep: SweepDir, *, again: bool = False) -> int:
    """Select among the finished jobs of a sweep, test and report; return the exit code.

    `again` replaces a selection that the test split was read for. Raises `UserError` if nothing can be selected.
    """
    # before the folder is changed
    decide_on_request(read_state(sweep), again=again)
    with resumed_runner(sweep) as runner:
        finish(runner, partial(decide_on_request, again=again))
    parts = read_state(sweep).strata.values()
    return 1 if any(part.untested(part.summary.selected) for part in parts) else 0


def exit_code(sweep: SweepDir) -> int:
    return 0 if sweep.status() == "finished" else 1


def _job_return(result: Result, overrides: Sequence[str]) -> JobReturn:
    """A job's result for Hydra's sweepers."""
    done = result.status == "finished"
    value = result.summary.to_dict() if done else RunError(f"{result.status}: {result.summary.error}")
    return JobReturn(
        overrides=list(overrides),
        cfg=None,  # no sweeper reads it, and to make it takes as long as a small job
        working_dir=str(result.run.path),
        status=JobStatus.COMPLETED if done else JobStatus.FAILED,
        _return_value=value,
    )
