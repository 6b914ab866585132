"""The manifest of a sweep: every job's configuration and identity, written before the first job starts.

So an edit of the configuration meanwhile changes nothing, and a stopped sweep is resumed from its folder alone.
A search adds its jobs as it goes, a line each, to a file beside the manifest: to write all of them again for each
trial would take ever longer. At its end they become part of the manifest.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import IO, Any, NamedTuple

from dlrun.errors import DamagedFile
from dlrun.storage.files.json_text import tagged, untagged
from dlrun.storage.files.opening import open_regular, read_bytes, read_json
from dlrun.storage.files.replacing import sync_folder, write_atomically
from dlrun.storage.identity import digest
from dlrun.storage.record import describe, misfit
from dlrun.storage.sweepdir import SweepDir

ADVICE = "Put a copy of it back. The runs of its jobs are not touched: `dlrun runs` lists them."


REPLICATED = ("seed", "dataset.split_seed", "dataset.fold")
"""Keys whose values are repetitions of one configuration, and not configurations of their own."""


class Replicate(NamedTuple):
    """A repetition: its seed and, where these are swept, the seed of its split and its fold."""

    seed: int
    split: int = -1
    fold: int = -1

    def __str__(self) -> str:
        more = [f"{name} {place}" for name, place in (("split", self.split), ("fold", self.fold)) if place >= 0]
        return f"{self.seed} ({', '.join(more)})" if more else str(self.seed)


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    `overrides` are this job's own, in the order of the sweep (`optimizer.lr=0.1`, `seed=0`). Jobs of
    one `group` are repetitions: they differ in keys of `REPLICATED` alone. `parts` are those of the identity
    (`storage.identity`), `unit` is the monitored metric's, `validation` the fingerprint of the validation samples:
    values of other units or samples are not comparable. Older manifests lack these.
    """

    n: int
    overrides: tuple[str, ...]
    config: dict[str, Any]
    identity: str
    group: str
    parts: Mapping[str, str] = field(default_factory=dict)
    unit: str | None = None
    validation: str | None = None

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def replicate(self) -> Replicate:
        own = {override.lstrip("+").partition("=")[0] for override in self.overrides}
        values = [self.config["dataset"].get(key.partition(".")[2]) if key in own else None for key in REPLICATED[1:]]
        return Replicate(self.seed, *(-1 if value is None else int(value) for value in values))

    @property
    def label(self) -> str:
        """The overrides, for a person."""
        return " ".join(o.lstrip("+") for o in self.overrides) or str(self.config.get("name"))

    @property
    def group_label(self) -> str:
        """The overrides without the seeds, for a person."""
        own = [o.lstrip("+") for o in self.overrides]
        return " ".join(o for o in own if o.partition("=")[0] not in REPLICATED) or str(self.config.get("name"))


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
        """The keys with several values, or that only some jobs are given; the seed among them.

        They are in the order of the overrides.
        """
        values: dict[str, set[str]] = {}
        given: Counter[str] = Counter()
        for job in self.jobs:
            own = dict(override.lstrip("+").partition("=")[::2] for override in job.overrides)
            given.update(own.keys())
            for key, value in own.items():
                values.setdefault(key, set()).add(value)
        return tuple(key for key, found in values.items() if len(found) > 1 or given[key] < len(self.jobs))

    @property
    def repetition(self) -> str:
        """The word for what the jobs of a group differ in."""
        swept = {*REPLICATED} & {*self.swept}
        return "seed" if "dataset.fold" not in swept else "fold" if len(swept) == 1 else "repetition"

    @property
    def groups(self) -> dict[str, list[Job]]:
        """The jobs by group, each in the manifest's order."""
        found: dict[str, list[Job]] = {}
        for job in self.jobs:
            found.setdefault(job.group, []).append(job)
        return found

    @property
    def strata(self) -> dict[str, frozenset[str]]:
        return strata(self.jobs)

    def extended(self, jobs: Sequence[Job]) -> Manifest:
        return replace(self, jobs=(*self.jobs, *jobs))

    def write(self, sweep: SweepDir) -> None:
        """Replace the manifest in the sweep's folder, in one move; it has the added jobs too."""
        content = _plain(_fields(self) | {"jobs": [*map(_fields, self.jobs)]})
        # indented: a person looks into it, and `definition` must come within the first 4 kB
        text = json.dumps(content | {"digest": digest(content)}, indent=1, allow_nan=False)
        write_atomically(sweep.manifest, text.encode() + b"\n")
        # a kill before this leaves lines of jobs that the manifest has: they are passed over
        sweep.added.unlink(missing_ok=True)


def add(sweep: SweepDir, jobs: Sequence[Job]) -> None:
    """Add jobs to those of a sweep's folder, durably; a reader sees a job whole or not at all."""
    content = [_plain(_fields(job)) for job in jobs]
    lines = [json.dumps({"job": job, "digest": digest(job)}, allow_nan=False) for job in content]
    new = not sweep.added.exists()
    with open_regular(sweep.added, "a+b", advice=ADVICE) as file:
        _drop_cut_line(file)
        file.write(b"".join(line.encode() + b"\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync_folder(sweep.path)


def _drop_cut_line(file: IO[bytes]) -> None:
    """Remove a last line that a kill or a full disk has cut: no reader has seen its job."""
    if not file.tell():
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """What JSON reads of a content again."""
    plain: dict[str, Any] = json.loads(json.dumps(tagged(content), allow_nan=False))
    return plain


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def strata(jobs: Sequence[Job]) -> dict[str, frozenset[str]]:
    """The groups with the same validation samples, by a label; only these can be ranked.

    A sweep over data sets has one for each. The label has the overrides that the others do not share.
    """
    samples: dict[str, dict[Replicate, str | None]] = {}
    for job in jobs:
        samples.setdefault(job.group, {})[job.replicate] = job.validation
    found: list[tuple[dict[Replicate, str | None], set[str]]] = []
    for group, own in samples.items():
        known, groups = next((each for each in found if _same_samples(each[0], own)), ({}, set()))
        if not groups:
            found.append((known, groups))
        known.update(own)
        groups.add(group)
    if len(found) == 1:
        return {"": frozenset(samples)}
    labels = [_label(jobs, groups) for _, groups in found]
    # where no value tells them apart, a group's hash does
    unique = [
        f"{label} ({min(groups)[:8]})" if labels.count(label) > 1 else label
        for label, (_, groups) in zip(labels, found, strict=True)
    ]
    return {label: frozenset(groups) for label, (_, groups) in zip(unique, found, strict=True)}


def _same_samples(one: Mapping[Replicate, str | None], other: Mapping[Replicate, str | None]) -> bool:
    common = one.keys() & other.keys()
    if not common:  # other seeds, where the data may follow the seed
        return not {*one.values()}.isdisjoint(other.values())
    return all(one[each] == other[each] for each in common)


def _label(jobs: Sequence[Job], groups: set[str]) -> str:
    inside = [job.overrides for job in jobs if job.group in groups]
    outside = [job.overrides for job in jobs if job.group not in groups]
    telling = [o for o in inside[0] if all(o in each for each in inside) and not all(o in each for each in outside)]
    return " ".join(o.lstrip("+") for o in telling) or min(groups)[:8]


def read(sweep: SweepDir) -> Manifest:
    """The manifest of a sweep, with the jobs that were added since.

    Raises `DamagedFile` if it was altered since it was written.
    """
    # first: their process may put them into the manifest meanwhile
    added = _added(sweep)
    content = read_json(sweep.manifest, advice=ADVICE)
    written = content.pop("digest", None)  # those of before 0.2 have none
    if written is not None and written != digest(content):
        raise DamagedFile(sweep.manifest, "it was altered after dlrun wrote it", ADVICE)
    content = untagged(content)
    if found := _misfit(content):
        raise DamagedFile(sweep.manifest, found, ADVICE)
    jobs = [*map(_job, content.pop("jobs"))]
    for job in added:
        if job.n > len(jobs):
            raise DamagedFile(sweep.added, f"it has job {job.n}, and job {len(jobs)} is nowhere", ADVICE)
        jobs += [job] if job.n == len(jobs) else []
    return Manifest(**content, jobs=tuple(jobs))


def _added(sweep: SweepDir) -> list[Job]:
    try:
        content = read_bytes(sweep.added, advice=ADVICE)
    except FileNotFoundError:
        return []
    found = []
    # a line without an end is being written, or was cut
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        job = record.get("job") if isinstance(record, dict) else None
        if not isinstance(job, dict) or record.get("digest") != digest(job):
            raise DamagedFile(sweep.added, "it was altered after dlrun wrote it", ADVICE)
        if misfits := _job_misfit(job := untagged(job)):
            raise DamagedFile(sweep.added, misfits, ADVICE)
        found.append(_job(job))
    return found


def _job(content: dict[str, Any]) -> Job:
    # JSON has no tuples; a job read again equals the one that was written
    return Job(**{**content, "overrides": tuple(content["overrides"])})


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
