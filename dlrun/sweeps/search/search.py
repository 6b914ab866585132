"""The search itself: a trial is asked for when a slot is free, its jobs are run, and what came of them is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import isfinite
from statistics import fmean
from typing import TYPE_CHECKING

from dlrun.errors import UserError
from dlrun.storage.manifest import Job
from dlrun.storage.results import Result
from dlrun.sweeps.runner import SweepRunner
from dlrun.sweeps.search.curves import CurveReader
from dlrun.sweeps.search.space import Space
from dlrun.sweeps.search.trials import Trials
from dlrun.terminal import output

if TYPE_CHECKING:
    from optuna.trial import Trial

ENDED = ("finished", "failed", "pruned")


@dataclass
class Open:
    """A trial that is not told yet: the overrides of its jobs (one a seed), and how far these are."""

    trial: Trial
    wanted: list[tuple[str, ...]]
    jobs: list[Job] = field(default_factory=list)
    ended: dict[int, Result] = field(default_factory=dict)
    reported: int = 0
    pruning: bool = False
    told: bool = False

    @property
    def running(self) -> list[Job]:
        """Return the jobs that were started and have not ended."""
        return [job for job in self.jobs if job.n not in self.ended]

    @property
    def given_up(self) -> bool:
        """Return whether no further job of it is started: one was pruned or has failed."""
        return any(result.status != "finished" for result in self.ended.values())

    @property
    def settled(self) -> bool:
        """Return whether all has come of it that will."""
        return not self.running and (self.given_up or len(self.ended) == len(self.wanted))


class Search:
    """Runs `total` trials in all, those that `trials` knows already among them."""

    def __init__(
        self, runner: SweepRunner, trials: Trials, space: Space, *, total: int, make: Callable[[tuple[str, ...]], Job]
    ) -> None:
        self._runner = runner
        self._store = runner.store
        self._trials = trials
        self._space = space
        self._total = total
        self._make = make
        self._watch = CurveReader(runner.store.manifest.monitor)
        self._open: list[Open] = []
        self._started: set[int] = set()

    def run(self) -> None:
        """Run what is left of the search: unfinished trials first, then new ones."""
        unfinished = self._trials.open()
        left = max(0, self._total - len(self._trials)) + len(unfinished)
        if left:
            count = left * max(1, len(self._space.seeds))
            self._runner.run(self._jobs(unfinished), count=count, on_result=self._told, on_tick=self._look)

    def _jobs(self, unfinished: list[Trial]) -> Iterator[Job | None]:
        for trial in unfinished:
            yield from self._jobs_of(trial)
        while len(self._trials) < self._total:
            yield from self._jobs_of(self._trials.ask())

    def _jobs_of(self, trial: Trial) -> Iterator[Job | None]:
        """Yield the jobs of a trial that are to be started; None while it is not clear whether there are more."""
        mine = Open(trial, self._space.overrides(trial.params))
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
                self._tell(mine, None)
                return
            mine.jobs.append(job)
            result = self._store.result(job)
            if result.status in ENDED:
                mine.ended[job.n] = result
            elif job.n not in self._started:  # else another trial has the same values, and runs it
                self._started.add(job.n)
                yield job
        self._settle(mine)

    def _job(self, overrides: tuple[str, ...]) -> Job:
        """Return the job with these overrides: the one that there is, or a new one, checked and in the manifest."""
        for job in self._store.manifest.jobs:
            if job.overrides == overrides:
                return job
        job = self._make(overrides)
        self._store.extend([job])
        return job

    def _told(self, result: Result) -> bool:
        """Take what came of a job."""
        for mine in self._open[:]:
            if any(job.n == result.job.n for job in mine.jobs) and result.status in ENDED:
                mine.ended[result.job.n] = result
                self._settle(mine)
        return True

    def _settle(self, mine: Open) -> None:
        """Tell what came of a trial, once all has; one whose job was killed stays open, to be gone on with."""
        if mine.told or not mine.settled:
            return
        results = list(mine.ended.values())
        statuses = {result.status for result in results}
        self._trials.report(mine.trial, self._watch.mean([result.run for result in results]))
        if "failed" in statuses:
            self._tell(mine, None)
        elif "pruned" in statuses:
            self._tell(mine, None, pruned=True)
        else:
            values = [result.metrics.get(self._store.manifest.monitor, float("nan")) for result in results]
            self._tell(mine, fmean(values) if all(map(isfinite, values)) else None)

    def _tell(self, mine: Open, value: float | None, *, pruned: bool = False) -> None:
        self._trials.tell(mine.trial, value, pruned=pruned)
        mine.told = True
        self._open.remove(mine)

    def _look(self) -> None:
        """Report how the running trials are doing, and ask the jobs of those that are not worth it to stop."""
        for mine in self._open:
            if not mine.running:
                continue
            if not mine.pruning and len(mine.jobs) == len(mine.wanted):
                values = self._watch.mean([self._store.sweep.run(job.n) for job in mine.jobs])
                if len(values) > mine.reported:
                    mine.reported = len(values)
                    mine.pruning = self._trials.report(mine.trial, values)
            if mine.pruning:
                self._stop(mine)

    def _stop(self, mine: Open) -> None:
        for job in mine.running:
            # a process that has only been started is not listening yet; it is asked again at the next look
            if self._store.sweep.job(job.n).alive():
                self._runner.stop(job.n)
