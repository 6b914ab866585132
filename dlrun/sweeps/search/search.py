"""The course of a search: a trial is proposed when a slot is free, its jobs run, and Optuna gets the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import isclose, isfinite, nan
from statistics import fmean
from typing import TYPE_CHECKING

from dlrun.errors import UserError
from dlrun.storage.jobs.job import Job
from dlrun.storage.results import ENDED, Result
from dlrun.sweeps.runner import SweepRunner
from dlrun.sweeps.search.curves import CurveReader
from dlrun.sweeps.search.space import Space
from dlrun.sweeps.search.trials import Trials
from dlrun.terminal import output
from dlrun.terminal.format import counted, number

if TYPE_CHECKING:
    from optuna.trial import Trial


@dataclass
class OpenTrial:
    """A trial without a result yet."""

    trial: Trial
    wanted: list[tuple[str, ...]]  # the overrides of a job for each seed
    jobs: list[Job] = field(default_factory=list)
    ended: dict[int, Result] = field(default_factory=dict)
    reported: int = 0
    pruning: bool = False
    closed: bool = False

    @property
    def running(self) -> list[Job]:
        return [job for job in self.jobs if job.n not in self.ended]

    @property
    def given_up(self) -> bool:
        # the other seeds need not start then
        return any(result.status != "finished" for result in self.ended.values())

    @property
    def complete(self) -> bool:
        return not self.running and (self.given_up or len(self.ended) == len(self.wanted))


class Search:
    """Runs trials until there are `total`."""

    def __init__(
        self,
        runner: SweepRunner,
        trials: Trials,
        space: Space,
        *,
        total: int,
        make_job: Callable[[tuple[str, ...]], Job],
    ) -> None:
        self._runner = runner
        self._store = runner.store
        self._trials = trials
        self._space = space
        self._total = total
        self._make_job = make_job
        self._curves = CurveReader(runner.store.manifest.monitor)
        self._open: list[OpenTrial] = []
        self._started: set[int] = set()

    def run(self) -> None:
        """Run an earlier process's open trials, then new ones, then the lost jobs of trials that have ended."""
        unfinished = self._trials.open()
        left = max(0, self._total - len(self._trials)) + len(unfinished)
        if left:
            count = left * max(1, len(self._space.seeds)) * max(1, len(self._space.repeated))
            if not self._runner.run(self._jobs(unfinished), count=count, on_result=self._take, on_tick=self._prune):
                return
        self._run_lost()

    def _jobs(self, unfinished: list[Trial]) -> Iterator[Job | None]:
        for trial in unfinished:
            yield from self._jobs_of(trial)
        while len(self._trials) < self._total:
            yield from self._jobs_of(self._trials.ask())

    def _jobs_of(self, trial: Trial) -> Iterator[Job | None]:
        """A trial's jobs; None while it is being pruned."""
        mine = OpenTrial(trial, self._space.overrides(trial.params))
        self._open.append(mine)
        for overrides in mine.wanted:
            while mine.pruning and mine.running:
                yield None
            if mine.given_up:
                break
            try:
                job = self._job(overrides)
            except UserError as error:
                output.warn(f"trial {trial.number} cannot be run: {' '.join(overrides)}: {error}")
                self._close(mine, None)
                return
            mine.jobs.append(job)
            result = self._store.result(job)
            if result.status in ENDED:
                mine.ended[job.n] = result
            elif job.n not in self._started:  # else another trial has the same values, and runs it
                self._started.add(job.n)
                yield job
        self._close_if_complete(mine)

    def _job(self, overrides: tuple[str, ...]) -> Job:
        """An earlier trial's job of these overrides, or a new one."""
        for job in self._store.manifest.jobs:
            if job.overrides == overrides:
                return job
        job = self._make_job(overrides)
        self._store.extend([job])
        return job

    def _take(self, result: Result) -> bool:
        for mine in self._open[:]:
            if any(job.n == result.job.n for job in mine.jobs) and result.status in ENDED:
                mine.ended[result.job.n] = result
                self._close_if_complete(mine)
        # a failed trial ends no search; `on_failure=stop` does, in `JobEvents`
        return True

    def _run_lost(self) -> None:
        """Run jobs again whose runs are gone though their trials have ended.

        A trial keeps the value that it was told: the trials after it were proposed by that.
        """
        # a trial stays open if its job was killed just now
        waiting = {job.n for mine in self._open for job in mine.jobs}
        lost = [job for job in self._runner.due() if job.n not in waiting]
        if not lost:
            return
        words = "has no finished run, and is" if len(lost) == 1 else "have no finished run, and are"
        output.say(f"{len(lost)} of {counted(len(self._store.manifest.jobs), 'job')} {words} run again")
        # no list: as in the search, each job has a process of its own
        self._runner.run(iter(lost), count=len(lost), on_result=self._take, on_tick=lambda: None)
        self._compare({job.overrides for job in lost})

    def _compare(self, again: set[tuple[str, ...]]) -> None:
        """Say where a job that was run again has another value than its trial."""
        monitor = self._store.manifest.monitor
        found = {result.job.overrides: result for result in self._store.results() if result.status == "finished"}
        for trial, params, told in self._trials.values():
            wanted = self._space.overrides(params)
            if again.isdisjoint(wanted) or not found.keys() >= {*wanted}:
                continue
            value = fmean(found[overrides].metrics.get(monitor, nan) for overrides in wanted)
            if not isclose(value, told, rel_tol=1e-6):
                output.warn(
                    f"trial {trial}: {monitor} is {number(value)} now; the search keeps the first, {number(told)}"
                )

    def _close_if_complete(self, mine: OpenTrial) -> None:
        # a killed job is not in ENDED: its trial stays open, to be resumed
        if mine.closed or not mine.complete:
            return
        results = list(mine.ended.values())
        statuses = {result.status for result in results}
        self._trials.report(mine.trial, self._curves.mean([result.run for result in results]))
        if "failed" in statuses:
            self._close(mine, None)
        elif "pruned" in statuses:
            self._close(mine, None, pruned=True)
        else:
            values = [result.metrics.get(self._store.manifest.monitor, float("nan")) for result in results]
            # without a finite metric a trial has failed
            self._close(mine, fmean(values) if all(map(isfinite, values)) else None)

    def _close(self, mine: OpenTrial, value: float | None, *, pruned: bool = False) -> None:
        self._trials.tell(mine.trial, value, pruned=pruned)
        mine.closed = True
        self._open.remove(mine)

    def _prune(self) -> None:
        """Report the running trials, and stop the worse ones."""
        for mine in self._open:
            if not mine.running:
                continue
            # before the last seed has started, there is no mean to report
            if not mine.pruning and len(mine.jobs) == len(mine.wanted):
                values = self._curves.mean([self._store.sweep.run(job.n, job.identity) for job in mine.jobs])
                if len(values) > mine.reported:
                    mine.reported = len(values)
                    mine.pruning = self._trials.report(mine.trial, values)
            if mine.pruning:
                self._stop(mine)

    def _stop(self, mine: OpenTrial) -> None:
        for job in mine.running:
            # a process that has just started does not listen yet; it is asked again at the next tick
            if self._store.sweep.job(job.n).alive():
                self._runner.stop(job.n)
