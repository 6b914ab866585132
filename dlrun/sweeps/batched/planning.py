"""Which jobs are trained as one program: those of one kind that go faster so, as a few steps of both ways show."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil

from dlrun.errors import UserError
from dlrun.stacked import training as ensemble
from dlrun.storage import checkpoint
from dlrun.storage.manifest import Job
from dlrun.sweeps.batched import timing
from dlrun.sweeps.batched.members import FREE, Builder, Member, alike, kinds
from dlrun.sweeps.batched.policy import PROCESS, SERVER
from dlrun.sweeps.pool.slots import cores
from dlrun.sweeps.pool.task import one_line as failed
from dlrun.terminal import output
from dlrun.terminal.format import duration

SHORT = 20
"""Steps below which a run is over before it would pay to put it beside others."""
FILES = 4
"""Files that a run in an ensemble has open."""


@dataclass(frozen=True)
class Stack:
    """Jobs to be trained as one program, on so many CPU threads."""

    members: list[Member]
    threads: int


class Stacking:
    """Goes through jobs: `stacks` yields what is to be one program, `rest` has the others when it is through.

    `reasons` says why these are not stacked, `seconds` how long those train that were timed.
    """

    def __init__(self, builder: Builder, *, slots: int) -> None:
        self.rest: list[Job] = []
        self.reasons: Counter[str] = Counter()
        self.seconds: dict[int, float] = {}
        self._builder = builder
        self._slots = slots
        self._steps: dict[int, int] = {}

    def stacks(self, jobs: Sequence[Job]) -> Iterator[Stack]:
        """Yield the stacks, one after another: the next is built when the one before has been trained."""
        for similar in alike(jobs):
            if len(similar) > 1:
                yield from self._of(similar)
            elif len(jobs) > 1:
                self._leave(similar, _nobody_like(similar[0]))
            else:
                self.rest += similar

    def _of(self, jobs: list[Job]) -> Iterator[Stack]:
        first = next((built[0] for job in jobs if (built := self._built([job]))), None)
        if first is None:
            return
        jobs = jobs[jobs.index(first.job) :]  # those before it are left already
        why = self._never(first)
        if why is not None:
            self._leave(jobs, why)
            return
        size = min(timing.room(first.built.training), _files() // FILES)
        portions = ceil(len(jobs) / max(2, size))
        for portion in range(portions):
            members = self._built(jobs[portion::portions])
            for group in kinds(members, lambda member: self._steps[member.job.n]):
                threads = self._worth_it(group) if len(group) > 1 else None
                if threads is not None:
                    yield Stack(group, threads)
                elif len(group) == 1:
                    self._leave([group[0].job], _apart(group[0], members))

    def _built(self, jobs: Sequence[Job]) -> list[Member]:
        """Return the jobs built; one that cannot be, or go on, is left to be run, and to fail, by itself."""
        members = []
        for job in jobs:
            try:
                member = self._builder.member(job)
                self._steps[job.n] = _step(member)
            except (UserError, OSError):
                self.rest.append(job)
            else:
                members.append(member)
        return members

    def _never(self, member: Member) -> str | None:
        """Return why a job has no place in an ensemble, whatever the others are."""
        training, trainer = member.built.training, member.built.trainer
        if trainer.minutes is not None:
            return "trainer.minutes gives each run its own number of steps"
        if trainer.profile:
            return "trainer.profile looks at one run"
        why = ensemble.reason([training])
        return why if why or training.plan.steps >= SHORT else f"{training.plan.steps} steps are soon over"

    def _worth_it(self, group: list[Member]) -> int | None:
        """Return the threads for a group that goes faster together; else leave its jobs, with the reason."""
        jobs, built, count = [member.job for member in group], group[0].built, len(group)
        asked, device = built.trainer.threads, built.execution.device
        threads = timing.threads_together(built.flop_per_step, count, device, asked=asked, cores=cores())
        try:
            together = timing.together([member.built.training for member in group], threads=threads)
            alone = timing.alone(self._builder.fresh(jobs[0]).training, threads=built.execution.threads)
        except Exception as error:  # no memory for so many, say: each run may still be trained
            self._leave(jobs, f"a few steps of them could not be timed ({failed(error)[:200]})")
            return None
        steps = built.training.plan.steps
        self.seconds |= {job.n: steps * alone for job in jobs}
        told = f"a step of a run takes {_short(together)} together, {_short(alone)} alone"
        here = count * steps * together
        apart = SERVER + count * (PROCESS + steps * alone) / self._slots if self._slots > 1 else float("inf")
        if together < alone and here < apart:
            output.say(f"batched: {count} jobs as one program, about {duration(here)}: {told}")
            return threads
        if together < alone:
            told = f"about {duration(apart)} in {self._slots} slots, {duration(here)} as one program"
        self._leave(jobs, told)
        return None

    def _leave(self, jobs: Sequence[Job], why: str) -> None:
        self.rest += jobs
        self.reasons[why] += len(jobs)


def _nobody_like(job: Job) -> str:
    """Return what a job has that no other has, by its overrides."""
    keys = [override.lstrip("+").partition("=")[0] for override in job.overrides]
    own = [key for key in keys if key.rpartition(".")[2] not in FREE]
    return f"no other has the same {' and '.join(own)}" if own else "no other is of their kind"


def _apart(member: Member, members: Sequence[Member]) -> str:
    """Return why none of the members can be trained beside this one."""
    other = next((each for each in members if each is not member), None)
    if other is None:
        return "there is no memory for two of them"
    why = ensemble.reason([member.built.training, other.built.training])
    return why or "they stand at steps of their own"


def _step(member: Member) -> int:
    """Return the step at which a job stands."""
    return int(checkpoint.load(member.folder.last)["state"]["step"]) if member.folder.last.exists() else 0


def _files() -> int:
    """Return how many files may be open beside those that are, after asking for as many as may be asked for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(8, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 256)


def _short(seconds: float) -> str:
    return f"{1e6 * seconds:.3g} µs" if seconds < 1e-3 else f"{1e3 * seconds:.3g} ms"
