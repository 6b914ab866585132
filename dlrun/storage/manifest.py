"""The manifest of a sweep: every job's configuration and identity, written before the first job starts.

So an edit of the configuration meanwhile changes nothing, and a stopped sweep is resumed from its folder alone.
A search adds its jobs as it goes, a line each, to a file beside the manifest: to write all of them again for each
trial would take ever longer. At its end they become part of the manifest.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import IO, Any

from dlrun.errors import DamagedFile
from dlrun.storage.files.json_text import tagged, untagged
from dlrun.storage.files.opening import open_regular, read_bytes, read_json
from dlrun.storage.files.record import describe, misfit
from dlrun.storage.files.replacing import sync_folder, write_atomically
from dlrun.storage.identity import digest
from dlrun.storage.jobs.job import REPLICATED, Job
from dlrun.storage.jobs.strata import find_strata
from dlrun.storage.sweepdir import SweepDir

ADVICE = "Put a copy of it back. The runs of its jobs are not touched: `dlrun runs` lists them."


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
    def repetitions(self) -> str:
        """Its plural."""
        return f"{self.repetition}s"

    @property
    def groups(self) -> dict[str, list[Job]]:
        """The jobs by group, each in the manifest's order."""
        found: dict[str, list[Job]] = {}
        for job in self.jobs:
            found.setdefault(job.group, []).append(job)
        return found

    @property
    def strata(self) -> dict[str, frozenset[str]]:
        return find_strata(self.jobs)

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


def _misfit(content: Any) -> str | None:
    """What makes a file's content no manifest, for a message."""
    # a number that is none is written as a mapping
    if not isinstance(content, dict):
        return describe("it", content)
    jobs = content.get("jobs")
    if not isinstance(jobs, list):
        return describe("jobs", jobs)
    if found := misfit({**content, "jobs": ()}, Manifest):
        return found
    for place, job in enumerate(jobs):
        if found := _job_misfit(job):
            return f"of job {place}, {found}"
    return None


def _job_misfit(job: Any) -> str | None:
    if not isinstance(job, dict):
        return describe("it", job)
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
