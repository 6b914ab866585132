"""The manifest of a sweep: every job's configuration and identity, written before the first job starts.

So an edit of the configuration meanwhile changes nothing, and a stopped sweep is resumed from its folder alone.
A search adds its jobs as it goes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from dlrun.errors import DamagedFile
from dlrun.storage.files.opening import read_json
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.identity import digest
from dlrun.storage.record import describe, misfit
from dlrun.storage.sweepdir import SweepDir

ADVICE = "Put a copy of it back. The runs of its jobs are not touched: `dlrun runs` lists them."


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    `overrides` are this job's own, in the order of the sweep (`optimizer.lr=0.1`, `seed=0`). Jobs of
    one `group` differ by nothing but the seed. `parts` are those of the identity (`storage.identity`);
    older manifests lack them.
    """

    n: int
    overrides: tuple[str, ...]
    config: dict[str, Any]
    identity: str
    group: str
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def label(self) -> str:
        """The overrides, for a person."""
        return " ".join(o.lstrip("+") for o in self.overrides) or str(self.config.get("name"))

    @property
    def group_label(self) -> str:
        """The overrides without the seed, for a person."""
        return " ".join(o.lstrip("+") for o in self.overrides if not o.startswith("seed=")) or str(
            self.config.get("name")
        )


@dataclass(frozen=True)
class Manifest:
    """The request of a sweep, and its jobs.

    `definition` is the hash of `asked`: the composed configuration, the sweep's overrides, the search space and
    dlrun's sources. The groups are ranked by the metric `monitor`; `test` is `evaluation.test`. `basis` has the other
    parts of the jobs' identities, each once: sources, data, versions, devices.
    """

    name: str
    definition: str
    asked: dict[str, Any]
    command: str
    created: float
    monitor: str
    higher_is_better: bool
    test: str
    study: dict[str, Any] | None = None
    jobs: tuple[Job, ...] = ()
    basis: dict[str, Any] = field(default_factory=dict)

    @property
    def swept(self) -> tuple[str, ...]:
        """The keys with several values, the seed among them.

        They are in the order of the overrides.
        """
        values: dict[str, set[str]] = {}
        for job in self.jobs:
            for override in job.overrides:
                key, _, value = override.lstrip("+").partition("=")
                values.setdefault(key, set()).add(value)
        return tuple(key for key, found in values.items() if len(found) > 1)

    @property
    def groups(self) -> dict[str, list[Job]]:
        """The jobs by group, each in the manifest's order."""
        found: dict[str, list[Job]] = {}
        for job in self.jobs:
            found.setdefault(job.group, []).append(job)
        return found

    def extended(self, jobs: Sequence[Job]) -> Manifest:
        return replace(self, jobs=(*self.jobs, *jobs))

    def write(self, sweep: SweepDir) -> None:
        """Replace the manifest in the sweep's folder, in one move."""
        content = json.loads(json.dumps(asdict(self)))
        # indented: a person looks into it, and `definition` must come within the first 4 kB
        text = json.dumps(content | {"digest": digest(content)}, indent=1)
        write_atomically(sweep.manifest, text.encode() + b"\n")


def read(sweep: SweepDir) -> Manifest:
    """The manifest of a sweep.

    Raises `DamagedFile` if it was altered since it was written.
    """
    content = read_json(sweep.manifest, advice=ADVICE)
    written = content.pop("digest", None)  # those of before 0.2 have none
    if written is not None and written != digest(content):
        raise DamagedFile(sweep.manifest, "it was altered after dlrun wrote it", ADVICE)
    if found := _misfit(content):
        raise DamagedFile(sweep.manifest, found, ADVICE)
    # JSON has no tuples; a job read again equals the one that was written
    jobs = tuple(Job(**{**job, "overrides": tuple(job["overrides"])}) for job in content.pop("jobs"))
    return Manifest(**content, jobs=jobs)


def _misfit(content: Mapping[str, Any]) -> str | None:
    """What makes a file's content no manifest, for a message."""
    jobs = content.get("jobs")
    if not isinstance(jobs, list):
        return describe("jobs", jobs)
    if found := misfit({**content, "jobs": ()}, Manifest):
        return found
    for place, job in enumerate(jobs):
        found = _job_misfit(job) if isinstance(job, dict) else describe("it", job)
        if found:
            return f"of job {place}, {found}"
    return None


def _job_misfit(job: dict[str, Any]) -> str | None:
    if found := misfit(job, Job):
        return found
    # the number names the job's folder
    if not isinstance(job["n"], int):
        return describe("n", job["n"])
    config = job["config"]
    # the rest of the configuration is checked when it is used
    for key in ("trainer", "tracking", "sweep"):
        if not isinstance(config.get(key) or {}, dict):
            return describe(f"config.{key}", config[key])
    seed = config.get("seed")
    return None if str(seed).removeprefix("-").isdecimal() else describe("config.seed", seed)
