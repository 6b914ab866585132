"""The results of a sweep: each job of its manifest with its run.

Selection, statistics, figures and claims read nothing else of a sweep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dlrun.errors import DamagedFile
from dlrun.storage import journal
from dlrun.storage.jobs.job import Job
from dlrun.storage.journal import Curves
from dlrun.storage.manifest import Manifest, read
from dlrun.storage.rundir import RunDir, lost_reuse
from dlrun.storage.summary import Summary
from dlrun.storage.sweep_summary import SweepSummary
from dlrun.storage.sweepdir import SweepDir

ENDED = ("finished", "failed", "pruned")
"""The statuses of a job that is not resumed by itself."""


@dataclass(frozen=True)
class Result:
    """One job and its run.

    The `status` is `missing` before the job has started, and `damaged` if its files cannot be read.
    """

    job: Job
    run: RunDir
    status: str
    summary: Summary = field(default_factory=Summary)
    reused: bool = False

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics at the selected weights."""
        return {name: float(value) for name, value in self.summary.metrics.items()}

    @property
    def changed(self) -> bool:
        """The run is not the job's any more: it was resumed with other settings."""
        # older runs and manifests have no identity to compare
        known = self.summary.identity if self.job.parts else None
        return known is not None and known != self.job.identity

    @property
    def swept(self) -> dict[str, str]:
        """The job's overrides by key, `{"optimizer.lr": "0.1"}`."""
        return {key: value for key, _, value in (o.lstrip("+").partition("=") for o in self.job.overrides)}

    def value(self, key: str) -> Any:
        """The configuration's value at a dotted key, or None."""
        found: Any = self.job.config
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def has(self, key: str) -> bool:
        """The configuration has a dotted key, be it null."""
        parent, _, leaf = key.rpartition(".")
        found = self.value(parent) if parent else self.job.config
        return isinstance(found, dict) and leaf in found

    def curves(self) -> Curves:
        """The curves of the run's journal."""
        return journal.curves(self.run.journal)


def results(sweep: SweepDir, manifest: Manifest | None = None) -> list[Result]:
    """Every job of a sweep with its run, in order."""
    return [_result(sweep, job) for job in (manifest or read(sweep)).jobs]


def unended(found: Sequence[Result], summary: SweepSummary) -> dict[str, int]:
    """The number of jobs that have not ended, by status, and of a search's missing `trials`.

    Nothing is selected before they have. `summary` is the sweep's.
    """
    statuses = Counter(result.status for result in found if result.status not in ENDED)
    # the searches of before this key are taken to be complete
    trials = max(0, summary.search.get("total", 0) - summary.search.get("trials", 0))
    return dict(statuses) | ({"trials": trials} if trials else {})


def finished(found: Sequence[Result]) -> list[Result]:
    return [result for result in found if result.status == "finished"]


def _result(sweep: SweepDir, job: Job) -> Result:
    try:
        run = sweep.run(job.n, job.identity)
        summary = run.summary()
        if not summary and (reason := lost_reuse(run.path, job.identity)):
            return Result(job, run, "missing", Summary({"error": reason}))
        status = summary.status if summary else "missing"
        # an ended run is read once: a report reads ten thousand
        if status == "running":
            status, summary = run.status(), run.summary()
        return Result(job, run, status, summary, reused=run != sweep.job(job.n))
    except DamagedFile as damage:
        return Result(job, sweep.job(job.n), "damaged", Summary({"error": f"{damage.path} is damaged: {damage.found}"}))
