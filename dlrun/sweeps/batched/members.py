"""Jobs that may be stacked: built, and grouped with those that fit beside them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlrun.runs.build import Built, assemble
from dlrun.runs.reload.rebuild import rebuild
from dlrun.stacked.key import stack_key
from dlrun.stacked.why_not import why_never
from dlrun.storage import identity, run_config
from dlrun.storage.jobs.job import Job
from dlrun.storage.rundir import RunDir
from dlrun.sweeps.batched.shared_data import SharedData
from dlrun.sweeps.run_job import seal

# the last part of a key, wherever it stands; `stack_key` has the final word on the built parts
FREE = (
    *("lr", "weight_decay", "momentum", "betas", "eps", "seed", "split_seed", "fold", "data_seed", "noise", "init"),
    *("label_smoothing", "clip", "patience", "name", "schedule", "degree"),
)
"""Keys in which stacked jobs may differ."""


@dataclass(frozen=True)
class Member:
    """A built job; `resumed` if it has begun already."""

    job: Job
    built: Built
    folder: RunDir
    resumed: bool


def similar(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Groups of jobs equal but for `FREE` keys."""
    # cheap, for nothing is built; `group` decides by what is built
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(identity.digest(_without_free(identity.essential(job.config))), []).append(job)
    yield from found.values()


def _without_free(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_free(inner) for name, inner in value.items() if name not in FREE}
    return value


class Builder:
    """Builds jobs that share their data sets."""

    def __init__(self, folder_of: Callable[[int], RunDir], load: SharedData) -> None:
        self._folder_of = folder_of
        self._load = load
        self._tried: set[str] = set()  # groups of which a job has taken its first steps

    def member(self, job: Job) -> Member:
        folder = self._folder_of(job.n)
        if folder.config.exists() and folder.journal.exists():
            # from the config of its own folder, as `dlrun resume` does
            built = self._seal(rebuild(folder, load=self._load))
            return Member(job, built, folder, resumed=True)
        return Member(job, self.fresh(job), folder, resumed=False)

    def fresh(self, job: Job) -> Built:
        """A job's parts before its first step."""
        # jobs of one group differ by the seed: the first steps are tried of one of them
        plain = run_config.read_values(job.config)
        built = assemble(plain, data=self._load(plain), try_steps=job.group not in self._tried)
        self._tried.add(job.group)
        return self._seal(built)

    def _seal(self, built: Built) -> Built:
        self._load.keep(built)  # moved to the device by now: the next job's need not be
        return seal(built)


def group(members: Sequence[Member], step: Callable[[Member], int]) -> Iterator[list[Member]]:
    """Groups of stackable members."""
    found: dict[Hashable, list[Member]] = {}
    for number, member in enumerate(members):
        training = member.built.training
        # a job that never fits gets a key of its own; runs at different steps go apart
        key: Hashable = number if why_never(training) else (stack_key(training), step(member))
        found.setdefault(key, []).append(member)
    yield from found.values()
