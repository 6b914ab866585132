"""What a tracker lacks: pending runs, jobs and sweeps."""

from __future__ import annotations

from collections.abc import Iterator

from dlrun.storage import manifest
from dlrun.storage.lookup import read_each
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.tracking.content.run_source import RunSource, of_job
from dlrun.tracking.content.state import has_uploader, run_stamp, sweep_stamp
from dlrun.tracking.tracker import Tracker
from dlrun.tracking.trackers import trackers_of


def pending(folder: RunDir | SweepDir) -> list[Tracker]:
    """The trackers without all of a run or sweep."""
    return [tracker for tracker in trackers_of(folder) if is_pending(folder, tracker)]


def is_pending(folder: RunDir | SweepDir, tracker: Tracker) -> bool:
    """Whether a tracker lacks something of a run or sweep."""
    jobs = _jobs(folder, tracker) if isinstance(folder, SweepDir) else iter(())
    return is_itself_pending(folder, tracker) or next(jobs, None) is not None


def is_itself_pending(folder: RunDir | SweepDir, tracker: Tracker) -> bool:
    """Whether a tracker lacks something of a run, or of a sweep beside its jobs."""
    location = tracker.location(folder)
    if isinstance(folder, SweepDir):
        return (own := folder.summary()).lacks(tracker.name, *sweep_stamp(folder, own, location))
    return (summary := folder.summary()).lacks(tracker.name, *run_stamp(folder, summary, location))


def mark_unsent(folder: RunDir | SweepDir, tracker: Tracker) -> None:
    """Record that a tracker may lack all of a run or sweep."""
    for source in _begun(folder) if isinstance(folder, SweepDir) else ():
        with source.edit_record() as record:
            record.mark_unsent(tracker.name)
    with folder.edit_summary() as summary:
        summary.mark_unsent(tracker.name)


def is_job_pending(source: RunSource, tracker: Tracker) -> bool:
    """Whether a tracker lacks something of a sweep's job."""
    stamp = run_stamp(source.run, source.run.summary(), tracker.location(source.run))
    # the record is of this sweep: a reused run is sent once for each
    return source.record().lacks(tracker.name, *stamp)


def is_unattended(sweep: SweepDir, tracker: Tracker) -> bool:
    """Whether something pending of a sweep has no uploader."""
    return is_itself_pending(sweep, tracker) or any(
        not has_uploader(source.home, tracker.name) for source in _jobs(sweep, tracker)
    )


def _jobs(sweep: SweepDir, tracker: Tracker) -> Iterator[RunSource]:
    """Yield the begun jobs that are pending."""
    return (source for source in _begun(sweep) if is_job_pending(source, tracker))


def _begun(sweep: SweepDir) -> Iterator[RunSource]:
    jobs = read_each(manifest.read(sweep).jobs, lambda job: sweep.run(job.n, job.identity).summary())
    return (of_job(sweep, job) for job, summary in jobs if summary)
