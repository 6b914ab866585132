"""Whether MLflow lacks something of a run or a sweep."""

from __future__ import annotations

from collections.abc import Iterator

from dlrun.storage import manifest
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.state import only_uploader, stamp, stamp_of_sweep
from dlrun.tracking.subject import Subject, of_job


def pending(run: RunDir) -> bool:
    """Return whether MLflow lacks something of the run."""
    summary = run.summary()
    return not summary.uploaded or summary.uploaded_stamp != stamp(run, summary)


def pending_sweep(sweep: SweepDir) -> bool:
    """Return whether MLflow lacks something of the sweep or of a job that was begun."""
    return _itself(sweep) or next(_jobs(sweep), None) is not None


def unattended(sweep: SweepDir) -> bool:
    """Return whether something is pending that no other uploader is sending."""
    return _itself(sweep) or any(_free(subject) for subject in _jobs(sweep))


def _itself(sweep: SweepDir) -> bool:
    summary = sweep.summary()
    return not summary.uploaded or summary.uploaded_stamp != stamp_of_sweep(sweep, summary)


def _jobs(sweep: SweepDir) -> Iterator[Subject]:
    """Yield the jobs that were begun and of which MLflow lacks something."""
    begun = (of_job(sweep, job) for job in manifest.read(sweep).jobs if sweep.run(job.n).summary())
    return (subject for subject in begun if subject.pending())


def _free(subject: Subject) -> bool:
    with only_uploader(subject.home) as free:
        return free
