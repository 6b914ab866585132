"""The reads of the test split that a sweep's runs have counted, and for whom they were."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dlrun.storage.results import Result
from dlrun.storage.sweep_summary import SweepSummary


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

    `summary` is the sweep's: its selected group, and the reads that it has known of.
    """
    groups = {chosen.get("group") for chosen in summary.selections}
    selected = _sum(reads_for(sweep_id, result) for result in results if result.job.group in groups)
    others = _sum(reads_for(sweep_id, result) for result in results if result.job.group not in groups)
    apart = [(result.reused, result.summary.test_reads - reads_for(sweep_id, result)) for result in results]
    return SweepReads(
        selected,
        others,
        max(0, summary.test_reads - selected.times - others.times),
        _sum(times for reused, times in apart if reused),
        _sum(times for reused, times in apart if not reused),
    )


def reads_for(sweep_id: str, result: Result) -> int:
    """A run's reads for one sweep.

    Of the sweep's own run these are all that were not for another sweep.
    """
    apart = result.summary.test_reads_for
    return apart.get(sweep_id, 0) if result.reused else result.summary.test_reads - sum(apart.values())


def total_reads(sweep_id: str, results: Sequence[Result]) -> int:
    """The reads for one sweep that its runs have counted."""
    return sum(reads_for(sweep_id, result) for result in results)


def _sum(times: Iterable[int]) -> Reads:
    counts = [each for each in times if each > 0]
    return Reads(sum(counts), len(counts))
