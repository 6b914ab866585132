"""The run to be sent: by itself, as a job of its sweep, or once more for another sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.storage import manifest, run_config
from dlrun.storage.files.json_text import dumps
from dlrun.storage.files.locks import locked
from dlrun.storage.files.replacing import write_atomically
from dlrun.storage.jobs.job import Job
from dlrun.storage.lookup import sweep_of
from dlrun.storage.rundir import REUSED, RunDir, read_reused
from dlrun.storage.summary import Uploaded
from dlrun.storage.sweepdir import SweepDir
from dlrun.terminal.escape import encodable
from dlrun.tracking.content.settings import setting

if TYPE_CHECKING:
    from torch import Tensor, nn

LoadModel = Callable[[RunDir], "tuple[nn.Module, Tensor]"]
"""Load a run's model with its selected weights, on the CPU, and an example of its input: two samples."""


@dataclass(frozen=True)
class RunSource:
    """A run to send, and the folder with its record.

    `home` is the run's own folder. A reused run is sent once more for the sweep that reuses it, so that each sweep is
    complete at the tracker: its home is then the job's folder in that sweep.
    """

    run: RunDir
    id: str
    home: Path
    label: str | None = None
    sweep: SweepDir | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    load_model: LoadModel | None = None

    @property
    def reused(self) -> bool:
        """Whether the run was trained for another sweep."""
        return self.home != self.run.path

    @cached_property
    def config(self) -> dict[str, Any]:
        """The run's configuration, read once."""
        return run_config.plain(self.run)

    @property
    def name(self) -> str:
        """The name to show, until a person renames it."""
        return encodable(self.label or f"{self.config.get('name', 'run')}-{self.id}")

    def setting(self, name: str, default: Any) -> Any:
        """A value of the configuration's group `tracking`."""
        return setting(self.config, name, default)

    def record(self) -> Uploaded:
        """How much of the run its trackers have."""
        return read_reused(self.home) if self.reused else self.run.summary()

    @contextmanager
    def edit_record(self) -> Iterator[Uploaded]:
        """Change the record under a lock."""
        if not self.reused:
            with self.run.edit_summary() as summary:
                yield summary
            return
        # the uploaders of two trackers may write at once
        with locked(self.home / ".reused.lock"):
            record = self.record()
            yield record
            write_atomically(self.home / REUSED, dumps(record.to_dict()).encode())


def of_run(run: RunDir, load_model: LoadModel | None = None) -> RunSource:
    """A run, by itself or as its sweep's job."""
    sweep = sweep_of(run)
    if sweep is None:
        return RunSource(run, run.id, run.path, load_model=load_model)
    if sweep.manifest.exists():
        for job in manifest.read(sweep).jobs:
            if sweep.job(job.n) == run:
                return of_job(sweep, job, load_model)
    # a foreign launcher writes no manifest
    return RunSource(run, run.id, run.path, sweep=sweep, tags={"dlrun.sweep": sweep.id}, load_model=load_model)


def of_job(sweep: SweepDir, job: Job, load_model: LoadModel | None = None) -> RunSource:
    """A job of a sweep, named by its overrides."""
    own, run = sweep.job(job.n), sweep.run(job.n, job.identity)
    tags = {"dlrun.sweep": sweep.id, "dlrun.group": job.group_label}
    if run != own:
        tags["dlrun.reused_from"] = run.id
    # the repetitions of a group have one label: each run's name tells its seed and its fold
    told = [o for o in job.overrides if o.partition("=")[0] in ("seed", "dataset.fold")]
    label = " ".join([job.group_label, *told])
    return RunSource(run, own.id, own.path, label, sweep, tags, load_model)
