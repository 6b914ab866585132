"""Jobs that another sweep has finished already: they are not run again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from dlrun.storage import manifest
from dlrun.storage.identity import differing
from dlrun.storage.jobs.job import Job
from dlrun.storage.lookup import all_sweeps, read_each
from dlrun.storage.manifest import Manifest
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir

Others = Iterable[tuple[SweepDir, Manifest]]


def other_sweeps(sweep: SweepDir | None = None) -> Others:
    """All other sweeps with their manifests, newest first."""
    return read_each((other for other in reversed(all_sweeps()) if other != sweep), manifest.read)


def reuse(sweep: SweepDir, jobs: Sequence[Job], others: Others) -> int:
    """Reuse finished runs of `others`; return the number of jobs."""
    found = find_finished(jobs, others)
    for n, (_, run) in found.items():
        sweep.reuse(n, run)
    return len(found)


def find_finished(jobs: Sequence[Job], others: Others) -> dict[int, tuple[SweepDir, RunDir]]:
    """Finished runs of the jobs' identities, by job number."""
    wanted: dict[str, list[Job]] = {}
    for job in jobs:
        wanted.setdefault(job.identity, []).append(job)
    found: dict[int, tuple[SweepDir, RunDir]] = {}
    for other, theirs in others:
        same = [job for job in theirs.jobs if job.identity in wanted]
        # a damaged one is said, and left out
        for job, run in read_each(same, partial(_finished_run, other)):
            if run and job.identity in wanted:
                found |= {wanting.n: (other, run) for wanting in wanted.pop(job.identity)}
    return found


def _finished_run(sweep: SweepDir, job: Job) -> RunDir | None:
    run = sweep.run(job.n, job.identity)
    # the run's own identity too: `dlrun resume RUN trainer.epochs=…` makes another run of it
    same = run.summary().identity == job.identity
    return run if same and run.status() == "finished" and run.best.exists() else None


def describe_reuse(jobs: Sequence[Job], others: Others) -> Iterator[str]:
    """A line for each sweep with some of these jobs.

    It has the number of those to reuse, or the parts of the identity that differ.
    """
    # read twice below
    known = list(others)
    found = find_finished(jobs, known)
    for sweep_id, count in Counter(other.id for other, _ in found.values()).items():
        yield f"{count} of {len(jobs)} are finished in sweep {sweep_id}"
    # the same configuration, but other data, code or device
    left = {job.parts["config"]: job for job in jobs if job.n not in found and job.parts}
    for other, theirs in known:
        near = [(left[key], job) for job in theirs.jobs if (key := job.parts.get("config")) in left]
        differences = list(dict.fromkeys(word for ours, job in near for word in differing(job.parts, ours.parts)))
        if differences:
            yield f"{len(near)} of {len(jobs)} are in sweep {other.id} too, but not the same: {', '.join(differences)}"
