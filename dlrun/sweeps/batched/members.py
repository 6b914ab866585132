"""Which jobs may be one program: built, and put together with those that an ensemble can train beside them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlrun.runs.build import Built, assemble
from dlrun.runs.reload import rebuild
from dlrun.stacked import training
from dlrun.storage import identity
from dlrun.storage.manifest import Job
from dlrun.storage.rundir import RunDir
from dlrun.sweeps.batched.shared_data import SharedData
from dlrun.sweeps.job import seal

FREE = (
    *("lr", "weight_decay", "momentum", "betas", "eps", "seed", "split_seed", "data_seed", "noise", "init"),
    *("label_smoothing", "clip", "patience", "name", "schedule", "degree"),
)
"""Keys whose values never decide by themselves whether jobs can be one program."""


@dataclass(frozen=True)
class Member:
    """A job that is built: its parts, its folder, and whether it goes on with what it has begun."""

    job: Job
    built: Built
    folder: RunDir
    resumed: bool


def alike(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Yield jobs that may turn out to be of one kind, by their configurations alone."""
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(identity.digest(_shape(identity.essential(job.config))), []).append(job)
    yield from found.values()


def _shape(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _shape(inner) for name, inner in value.items() if name not in FREE}
    return value


class Builder:
    """Builds jobs that share their data sets."""

    def __init__(self, folder_of: Callable[[int], RunDir], load: SharedData) -> None:
        self._folder_of = folder_of
        self._load = load

    def member(self, job: Job) -> Member:
        """Return a job with its parts."""
        folder = self._folder_of(job.n)
        if folder.config.exists() and folder.journal.exists():
            built = self._kept(rebuild(folder, load=self._load))
            return Member(job, built, folder, resumed=True)
        return Member(job, self.fresh(job), folder, resumed=False)

    def fresh(self, job: Job) -> Built:
        """Return a job's parts as they are before its first step."""
        return self._kept(assemble(job.config, data=self._load(job.config)))

    def _kept(self, built: Built) -> Built:
        """Return a job's parts, sealed; its data set, moved to its device, is the next job's too."""
        self._load.keep(built)
        return seal(built)


def kinds(members: Sequence[Member], steps: Callable[[Member], int]) -> Iterator[list[Member]]:
    """Yield the members that can be trained together: of one kind, and at the same step."""
    found: dict[Hashable, list[Member]] = {}
    for place, member in enumerate(members):
        kind = training.kind(member.built.training)
        key: Hashable = place if kind is None else (tuple(kind.items()), steps(member))
        found.setdefault(key, []).append(member)
    yield from found.values()
