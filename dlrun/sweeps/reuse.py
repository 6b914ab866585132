"""Jobs that another sweep has finished already: they are not run again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dlrun.storage import manifest
from dlrun.storage.lookup import all_sweeps
from dlrun.storage.manifest import Job, Manifest
from dlrun.storage.sweepdir import SweepDir


def other_sweeps(sweep: SweepDir) -> Iterable[tuple[SweepDir, Manifest]]:
    """All sweeps but this one with their manifests, the newest first."""
    return ((other, manifest.read(other)) for other in reversed(all_sweeps()) if other != sweep)


def reuse(sweep: SweepDir, jobs: Sequence[Job], others: Iterable[tuple[SweepDir, Manifest]]) -> int:
    """Let finished runs of `others` stand for those of `jobs` with the same identity; return the number of jobs."""
    wanted: dict[str, list[Job]] = {}
    for job in jobs:
        wanted.setdefault(job.identity, []).append(job)
    count = 0
    for other, theirs in others:
        for job in theirs.jobs:
            if job.identity not in wanted:
                continue
            run = other.run(job.n)
            # the run's own identity too: `dlrun resume RUN trainer.epochs=…` makes another run of it
            same = run.summary().identity == job.identity
            if same and run.status() == "finished" and run.best.exists():
                for wanting in wanted.pop(job.identity):
                    sweep.reuse(wanting.n, run)
                    count += 1
    return count
