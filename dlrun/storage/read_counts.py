"""The reads of the test split that a sweep's runs have counted, and for whom they were.

The sweep's summary notes them by job and by run. So a run's folder that is deleted takes no read along.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dlrun.errors import DamagedFile
from dlrun.storage.journal import first_start
from dlrun.storage.results import Result, results
from dlrun.storage.sweep_summary import SweepSummary
from dlrun.storage.sweepdir import SweepDir

UNKNOWN = ""
"""Among the jobs: reads that an older dlrun counted, by runs that are gone."""


@dataclass(frozen=True)
class Reads:
    """A number of reads, and of the runs that made them."""

    times: int = 0
    runs: int = 0


@dataclass(frozen=True)
class SweepReads:
    """The counted reads of a sweep.

    The first three are for this sweep: by its selected group, by other jobs, and by runs whose folders are gone.
    """

    selected: Reads = Reads()
    others: Reads = Reads()
    gone: int = 0
    # of `gone`, those that may be of jobs that are not selected
    gone_others: int = 0
    # by reused runs, for other sweeps
    reused: Reads = Reads()
    # by this sweep's runs, for sweeps that reuse them
    elsewhere: Reads = Reads()

    @property
    def total(self) -> int:
        """The reads for this sweep."""
        return self.selected.times + self.others.times + self.gone


def count_reads(sweep_id: str, results: Sequence[Result], summary: SweepSummary) -> SweepReads:
    """Count from the summaries of the runs.

    `summary` is the sweep's: its selected group, and the reads that it has noted.
    """
    groups = {chosen.get("group") for chosen in summary.selections}
    noted = SweepSummary(summary.to_dict())
    _note(noted, sweep_id, results)
    gone = {r.job.n: _noted(noted, str(r.job.n)) - reads_for(sweep_id, r) for r in results}
    unknown = _noted(noted, UNKNOWN)
    gone_others = unknown + sum(gone[result.job.n] for result in results if result.job.group not in groups)
    selected = _sum(reads_for(sweep_id, result) for result in results if result.job.group in groups)
    others = _sum(reads_for(sweep_id, result) for result in results if result.job.group not in groups)
    apart = [(result.reused, result.summary.test_reads - reads_for(sweep_id, result)) for result in results]
    return SweepReads(
        selected,
        others,
        unknown + sum(gone.values()),
        gone_others,
        _sum(times for reused, times in apart if reused),
        _sum(times for reused, times in apart if not reused),
    )


def note_reads(sweep: SweepDir) -> None:
    """Note the reads of a sweep's runs in its summary.

    To be called wherever a run has read, or its folder is to be deleted.
    """
    # jobs of a foreign launcher have no sweep
    if not sweep.manifest.exists():
        return
    try:
        found, known = results(sweep), sweep.summary()
    except DamagedFile:  # said where the sweep is read; its runs keep their counts
        return
    # one that was lost is made again by `dlrun resume`
    if not known:
        return
    noted = SweepSummary(known.to_dict())
    _note(noted, sweep.id, found)
    if noted != known:
        with sweep.edit_summary() as summary:
            _note(summary, sweep.id, found)


def reads_for(sweep_id: str, result: Result) -> int:
    """A run's reads for one sweep.

    Of the sweep's own run these are all that were not for another sweep.
    """
    apart = result.summary.test_reads_for
    return apart.get(sweep_id, 0) if result.reused else result.summary.test_reads - sum(apart.values())


def _note(summary: SweepSummary, sweep_id: str, found: Sequence[Result]) -> None:
    known = {job: dict(runs) for job, runs in summary.reads_by_job.items()}
    for result in found:
        if times := reads_for(sweep_id, result):
            runs = known.setdefault(str(result.job.n), {})
            # a job whose folder was deleted is run again: another run
            begun = str(result.summary.started or first_start(result.run.journal) or "")
            runs[begun] = max(times, runs.get(begun, 0))
    counted = sum(sum(runs.values()) for runs in known.values())
    if summary.test_reads > counted:
        known[UNKNOWN] = {"": sum(known.get(UNKNOWN, {}).values()) + summary.test_reads - counted}
    summary.reads_by_job, summary.test_reads = known, max(summary.test_reads, counted)


def _noted(summary: SweepSummary, job: str) -> int:
    return sum(summary.reads_by_job.get(job, {}).values())


def _sum(times: Iterable[int]) -> Reads:
    counts = [each for each in times if each > 0]
    return Reads(sum(counts), len(counts))
