"""What came of a sweep: each job of its manifest beside the run that stands for it.

Everything that looks back at a sweep (selection, statistics, figures, claims) reads this and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dlrun.storage import journal, manifest
from dlrun.storage.manifest import Job, Manifest
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import Summary
from dlrun.storage.sweepdir import SweepDir

Curves = dict[str, list[tuple[int, float]]]
"""Points (step, value) by the metric's name."""


@dataclass(frozen=True)
class Result:
    """One job, and what its run says about itself; `status` is `missing` before the job was started."""

    job: Job
    run: RunDir
    status: str
    summary: Summary = field(default_factory=Summary)
    reused: bool = False

    @property
    def metrics(self) -> dict[str, float]:
        """Return the metrics at the selected weights."""
        return {name: float(value) for name, value in self.summary.metrics.items()}

    @property
    def swept(self) -> dict[str, str]:
        """Return the job's own values by key, as text: `{"optimizer.lr": "0.1", "seed": "0"}`."""
        return {key: value for key, _, value in (o.lstrip("+").partition("=") for o in self.job.overrides)}

    def value(self, key: str) -> Any:
        """Return a value of the job's configuration by its dotted key, as `model.degree`; None if there is none."""
        found: Any = self.job.config
        for part in key.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def curves(self) -> Curves:
        """Return the curves of the run's journal."""
        return journal.curves(self.run.journal)


def results(sweep: SweepDir, what: Manifest | None = None) -> list[Result]:
    """Return every job of a sweep with its run, in the order of the jobs."""
    return [_result(sweep, job) for job in (what or manifest.read(sweep)).jobs]


def finished(found: Sequence[Result]) -> list[Result]:
    """Return those whose run finished."""
    return [result for result in found if result.status == "finished"]


def _result(sweep: SweepDir, job: Job) -> Result:
    run = sweep.run(job.n)
    summary = run.summary()
    status = run.status() if summary else "missing"
    return Result(job, run, status, run.summary(), reused=run != sweep.job(job.n))
