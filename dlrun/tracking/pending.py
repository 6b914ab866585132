"""Whether MLflow lacks something of a run or a sweep."""

from __future__ import annotations

from dlrun import manifest
from dlrun.rundir import RunDir
from dlrun.sweepdir import SweepDir
from dlrun.tracking.state import stamp, stamp_of_sweep
from dlrun.tracking.subject import of_job


def pending(run: RunDir) -> bool:
    """Return whether MLflow lacks something of the run."""
    summary = run.summary()
    return not summary.get("uploaded") or summary.get("uploaded_stamp") != stamp(run, summary)


def pending_sweep(sweep: SweepDir) -> bool:
    """Return whether MLflow lacks something of the sweep or of a job that was begun."""
    summary = sweep.summary()
    if not summary.get("uploaded") or summary.get("uploaded_stamp") != stamp_of_sweep(sweep, summary):
        return True
    begun = (job for job in manifest.read(sweep).jobs if sweep.run(job.n).summary())
    return any(of_job(sweep, job).pending() for job in begun)
