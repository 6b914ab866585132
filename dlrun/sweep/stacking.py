"""Which jobs are trained as one program: those of one kind that go faster so, as a few steps of both ways show."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil

from dlrun import checkpoint, console, ensemble
from dlrun.errors import UserError
from dlrun.manifest import Job
from dlrun.sweep import pace
from dlrun.sweep.batched import PROCESS, SERVER
from dlrun.sweep.groups import Builder, Member, alike, kinds
from dlrun.sweep.slots import cores

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

    def stacks(self, jobs: Sequence[Job]) -> Iterator[Stack]:
        """Yield the stacks, one after another: the next is built when the one before has been trained."""
        for similar in alike(jobs):
            if len(similar) < 2:
                self.rest += similar
                continue
            yield from self._of(similar)

    def _of(self, jobs: list[Job]) -> Iterator[Stack]:
        first = self._built(jobs[:1])
        why = self._never(first[0]) if first else "they cannot be built"
        if why is not None:
            self._leave(jobs, why)
            return
        size = min(pace.room(first[0].built.training), _files() // FILES)
        portions = ceil(len(jobs) / max(2, size))
        for portion in range(portions):
            members = self._built(jobs[portion::portions])
            for group in kinds(members, _step):
                threads = self._worth_it(group)
                if threads is not None:
                    yield Stack(group, threads)

    def _built(self, jobs: Sequence[Job]) -> list[Member]:
        """Return the jobs built; one that cannot be is left to be run, and to fail, by itself."""
        members = []
        for job in jobs:
            try:
                members.append(self._builder.member(job))
            except (UserError, OSError):
                self.rest.append(job)
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
        jobs, built = [member.job for member in group], group[0].built
        if len(group) < 2:
            self._leave(jobs, "no other is of their kind")
            return None
        asked = built.trainer.threads
        threads = pace.threads_together(
            built.flop_per_step, len(group), built.execution.device, asked=asked, cores=cores()
        )
        together = pace.together([member.built.training for member in group], threads=threads)
        alone = pace.alone(self._builder.fresh(jobs[0]).training, threads=built.execution.threads)
        steps, count = built.training.plan.steps, len(group)
        self.seconds |= {job.n: steps * alone for job in jobs}
        apart = SERVER + count * (PROCESS + steps * alone) / self._slots if self._slots > 1 else float("inf")
        told = f"a step of a run takes {_short(together)} together, {_short(alone)} alone"
        if together >= alone or count * steps * together >= apart:
            self._leave(jobs, told)
            return None
        console.say(f"batched: {count} jobs as one program, about {console.duration(count * steps * together)}: {told}")
        return threads

    def _leave(self, jobs: Sequence[Job], why: str) -> None:
        self.rest += jobs
        self.reasons[why] += len(jobs)


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
