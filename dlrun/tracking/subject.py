"""What a run is shown as: by itself, as a job under its sweep, or once more in a sweep that reuses it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dlrun.storage import manifest
from dlrun.storage.files import write_atomically
from dlrun.storage.lookup import sweep_of
from dlrun.storage.manifest import Job
from dlrun.storage.rundir import REUSED, RunDir
from dlrun.storage.summary import Reused, Uploaded
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.describe import shorten
from dlrun.tracking.state import stamp

NAME = 250
"""The longest name of a run that every store takes."""


@dataclass(frozen=True)
class Subject:
    """A run, and how it is to appear; `name` is None where that follows from the configuration.

    `home` is the folder whose note says what MLflow has: the run's own, unless a sweep reuses it. The
    run then appears a second time, in the sweep that was asked for, so that this one is complete.
    """

    run: RunDir
    id: str
    home: Path
    name: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def reused(self) -> bool:
        """Return whether the run was trained for another sweep."""
        return self.home != self.run.path

    def noted(self) -> Uploaded:
        """What the folder says about MLflow."""
        return Reused(json.loads((self.home / REUSED).read_text())) if self.reused else self.run.summary()

    @contextmanager
    def edit(self) -> Iterator[Uploaded]:
        """Change what the folder says about MLflow."""
        if self.reused:
            note = self.noted()
            yield note
            write_atomically(self.home / REUSED, json.dumps(note.to_dict()).encode())
        else:
            with self.run.edit_summary() as summary:
                yield summary

    def pending(self) -> bool:
        """Return whether MLflow lacks something of it."""
        noted = self.noted()
        return not noted.uploaded or noted.uploaded_stamp != stamp(self.run, self.run.summary())


def alone(run: RunDir) -> Subject:
    """Return how a run appears that is sent by itself; a job of a sweep still knows its sweep."""
    sweep = sweep_of(run)
    if sweep is None:
        return Subject(run, run.id, run.path)
    if sweep.manifest.exists():
        for job in manifest.read(sweep).jobs:
            if sweep.job(job.n) == run:
                return of_job(sweep, job)
    return Subject(run, run.id, run.path, tags={"dlrun.sweeps": sweep.id})


def of_job(sweep: SweepDir, job: Job) -> Subject:
    """Return how a job of a sweep appears: under its parent, its overrides as its name."""
    own, run = sweep.job(job.n), sweep.run(job.n)
    tags = {"dlrun.sweeps": sweep.id, "dlrun.group": job.label}
    parent = sweep.summary().mlflow_run_id
    if parent:
        tags["mlflow.parentRunId"] = parent
    if run != own:
        tags["dlrun.reused_from"] = run.id
    return Subject(run, own.id, own.path, name(job), tags)


def name(job: Job) -> str:
    """Return a job's name in MLflow: what sets it apart from the others, which stand in no column at first."""
    seeded = any(override.startswith("seed=") for override in job.overrides)
    return shorten(f"{job.label} seed={job.seed}" if seeded else job.label, NAME)
