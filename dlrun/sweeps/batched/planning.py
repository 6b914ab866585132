"""The choice of stacks: similar jobs, if a few timed steps are faster stacked, and of jobs to run here one by one."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil

from dlrun.errors import UserError
from dlrun.stacked.why_not import why_not
from dlrun.storage import checkpoint
from dlrun.storage.jobs.job import Job
from dlrun.sweeps.batched import timing
from dlrun.sweeps.batched.members import FREE, Builder, Member, group, similar
from dlrun.sweeps.batched.short_jobs import SHORT
from dlrun.sweeps.pool.slots import cores
from dlrun.sweeps.pool.task import one_line
from dlrun.terminal import output
from dlrun.terminal.format import counted

FILES = 4
"""Files that each stacked run holds open: its lock, journal and log, and a checkpoint while it is written."""

MOST_FILES = 65536
"""Files that are asked for where the system sets no limit."""


@dataclass(frozen=True)
class Stack:
    """Jobs to train as one program, on `threads` CPU threads."""

    members: list[Member]
    threads: int


class Planner:
    """Finds the stacks among jobs.

    `stacks` yields them; then `reasons` says why the other jobs are none. Of these, `here` are faster in this process,
    one after another, and `rest` in the pool.
    """

    def __init__(self, builder: Builder, *, slots: int) -> None:
        self.here: list[Job] = []
        self.rest: list[Job] = []
        self.reasons: Counter[str] = Counter()
        self._builder = builder
        self._slots = slots
        self._steps: dict[int, int] = {}

    def stacks(self, jobs: Sequence[Job]) -> Iterator[Stack]:
        """Yield the stacks one by one."""
        # lazily: the next is built when the last is trained, for both would fill the memory
        for alike in similar(jobs):
            if len(alike) > 1:
                yield from self._stacks_of(alike)
            elif len(jobs) > 1:  # a single job needs no reason
                self._leave(alike, _why_single(alike[0]))
            else:
                self.rest += alike

    def _stacks_of(self, jobs: list[Job]) -> Iterator[Stack]:
        first = next((built[0] for job in jobs if (built := self._build([job]))), None)
        if first is None:
            return
        jobs = jobs[jobs.index(first.job) :]  # those before it could not be built, and are in `rest`
        why = _why_never(first)
        if why is not None:
            self._leave(jobs, why, seconds=self._time_single(first))
            return
        # memory and open files bound a stack; equal portions, rather than full ones and a rest
        size = min(timing.room(first.built.training), _spare_files() // FILES)
        portions = ceil(len(jobs) / max(2, size))
        for portion in range(portions):
            members = self._build(jobs[portion::portions])
            # what differs only once it is built (sizes of data, steps of a checkpoint) separates them further
            for each in group(members, lambda member: self._steps[member.job.n]):
                stack = self._plan(each) if len(each) > 1 else None
                if stack is not None:
                    yield stack
                elif len(each) == 1:
                    self._leave([each[0].job], _why_not_with(each[0], members))

    def _build(self, jobs: Sequence[Job]) -> list[Member]:
        members = []
        for job in jobs:
            try:
                member = self._builder.member(job)
                self._steps[job.n] = _step(member)
            except (UserError, OSError):
                self.rest.append(job)  # it will fail by itself, and say why in its own log
            else:
                members.append(member)
        return members

    def _plan(self, members: list[Member]) -> Stack | None:
        """A stack of these if it is faster, else None."""
        jobs = [member.job for member in members]
        try:
            estimate = self._estimate(members)
        except Exception as error:  # no memory for so many, say: each run may still be trained
            self._leave(jobs, f"a few steps of them could not be timed ({one_line(error)[:200]})")
            return None
        why = estimate.why_not(self._slots)
        if why is not None:
            self._leave(jobs, why, seconds=estimate.steps * estimate.single)
            return None
        output.say(f"batched: {len(jobs)} jobs as one program, {estimate}")
        return Stack(members, estimate.threads)

    def _estimate(self, members: list[Member]) -> timing.Estimate:
        built = members[0].built
        threads = timing.stacked_threads(built, len(members), cores=cores())
        return timing.Estimate(
            count=len(members),
            steps=built.training.plan.steps,
            threads=threads,
            stacked=timing.time_stacked([member.built.training for member in members], threads=threads),
            # the steps spend a run: it is built once more
            single=timing.time_single(self._builder.fresh(members[0].job).training, threads=built.execution.threads),
        )

    def _time_single(self, member: Member) -> float | None:
        """The seconds of such a run's steps, from a few of them; None if unknown."""
        # in a single slot it decides nothing
        if member.built.trainer.minutes is not None or self._slots == 1:
            return None
        try:
            training = self._builder.fresh(member.job).training  # the steps spend it
            return training.plan.steps * timing.time_single(training, threads=member.built.execution.threads)
        except Exception:  # it will fail by itself, and say why in its own log
            return None

    def _leave(self, jobs: Sequence[Job], why: str, *, seconds: float | None = None) -> None:
        """Leave jobs unstacked; each takes `seconds`, if that is known."""
        # in a single slot the pool takes longer in any case
        here = self._slots == 1 or (
            seconds is not None and len(jobs) * seconds <= timing.seconds_in_pool(len(jobs), seconds, self._slots)
        )
        (self.here if here else self.rest).extend(jobs)
        self.reasons[why] += len(jobs)


def _why_never(member: Member) -> str | None:
    """The reason against any stack, or None."""
    training, trainer = member.built.training, member.built.trainer
    if trainer.minutes is not None:
        return "trainer.minutes gives each run its own number of steps"
    if trainer.profile:
        return "trainer.profile looks at one run"
    if watching := member.built.observers.during_training:
        return f"observers.{watching[0]} looks at the model of one run while it trains"
    why = why_not([training])
    steps = training.plan.steps
    return why if why or steps >= SHORT else f"{counted(steps, 'step')} {'is' if steps == 1 else 'are'} soon over"


def _why_single(job: Job) -> str:
    """The reason against stacking a job without a partner."""
    keys = [override.lstrip("+").partition("=")[0] for override in job.overrides]
    own = [key for key in keys if key.rpartition(".")[2] not in FREE]
    return f"no other has the same {' and '.join(own)}" if own else "no other is of their kind"


def _why_not_with(member: Member, members: Sequence[Member]) -> str:
    other = next((each for each in members if each is not member), None)
    if other is None:
        return "there is no memory for two of them"
    why = why_not([member.built.training, other.built.training])
    return why or "they stand at steps of their own"


def _step(member: Member) -> int:
    return checkpoint.load(member.folder.last).step if member.folder.last.exists() else 0


def _spare_files() -> int:
    """Raise the limit of open files; returns the rest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    # 256 for what the process has open itself; never less than a stack of two needs
    return max(8, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 256)
