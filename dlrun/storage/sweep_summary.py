"""A sweep's summary.json: its selection, and the words for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import compress
from typing import Any, TypedDict

from dlrun.storage.files.record import Key
from dlrun.storage.summary import FolderSummary
from dlrun.terminal.format import counted, number


class Selection(TypedDict, total=False):
    """The selected group, and its mean of the monitored metric.

    Older sweeps have the first five keys.
    """

    group: str
    label: str
    monitor: str
    mean: float | None
    jobs: list[int]
    # of one made on request: the jobs that had not ended, by status, and the number of all jobs
    without: Mapping[str, int]
    of: int
    # reads of the test split by the sweep's runs before the selection
    reads_before: int
    # True once the test split was read for it: from then on it is final
    read: bool
    # earlier selections for which the test split had been read; this one replaced them on request
    earlier: Sequence[Selection]


class Stratum(TypedDict, total=False):
    """The selection among the groups of one data set, in a sweep over several."""

    label: str
    selected: Selection | None
    selected_now: Selection | None


class SearchCounts(TypedDict, total=False):
    """A search's sampler, and the numbers of its trials.

    `trials` are those so far, `total` all that it will have; the others are by state.
    """

    sampler: str
    trials: int
    total: int
    running: int
    complete: int
    pruned: int
    fail: int
    waiting: int


class SweepSummary(FolderSummary):
    """A sweep's summary.json."""

    __slots__ = ()

    selected = Key[Selection | None](None)
    # the group that would be selected now, where the selection is final and another
    selected_now = Key[Selection | None](None)
    # instead of these two, in a sweep over several data sets
    strata = Key[Sequence[Stratum]](())
    search = Key[SearchCounts]({})

    # the reads of the test split for this sweep: by job number, then by the run's start
    reads_by_job = Key[Mapping[str, Mapping[str, int]]]({})

    # the number of jobs, in all and of each status
    jobs = Key(0)
    finished = Key(0)
    failed = Key(0)
    killed = Key(0)
    pruned = Key(0)
    missing = Key(0)
    reused = Key(0)
    killed_jobs = Key(0)

    def count(self, statuses: Sequence[str]) -> None:
        """Set the number of jobs of each status."""
        self.jobs = len(statuses)
        self.finished, self.failed = statuses.count("finished"), statuses.count("failed")
        self.killed, self.pruned = statuses.count("killed"), statuses.count("pruned")
        self.missing = statuses.count("missing")
        # stays when the killed jobs have been resumed
        if self.killed:
            self.killed_jobs = self.killed

    @property
    def selections(self) -> list[Selection]:
        """What is selected: one, or one in each stratum."""
        found = [self.selected, *(stratum.get("selected") for stratum in self.strata)]
        return [each for each in found if each]

    def of_stratum(self, groups: Collection[str]) -> SweepSummary:
        """The summary of a part of the sweep, as if it were a sweep of its own."""
        # not by the label: a search that is made longer may have other ones
        chosen = ((each.get("selected") or {}).get("group") in groups for each in self.strata)
        own = next(compress(self.strata, chosen), Stratum())
        part = SweepSummary(self.to_dict())
        part.selected, part.selected_now, part.strata = own.get("selected"), own.get("selected_now"), ()
        # reads of no known job are of no known stratum
        part.reads_by_job = {job: runs for job, runs in self.reads_by_job.items() if job}
        part.test_reads = 0
        return part

    def to_send(self) -> list[Any]:
        now = [each for each in (self.selected_now, self.strata) if each]
        return [*(self._values.get(key) for key in ("status", "selected", "test_reads")), *now]


def describe_unended(unended: Mapping[str, int], jobs: int, *, past: bool = False) -> str:
    """The jobs that have not ended, in words.

    >>> describe_unended({"killed": 2}, 6), describe_unended({"missing": 1, "trials": 4}, 6, past=True)
    ('2 of 6 jobs are killed', '1 of 6 jobs was missing and 4 trials were missing')
    """
    words = {"failed": "unsuccessful"}
    statuses = {words.get(status, status): count for status, count in unended.items() if status != "trials"}
    parts = []
    if statuses:
        count = sum(statuses.values())
        parts.append(f"{count} of {counted(jobs, 'job')} {_be(count, past)} {' or '.join(statuses)}")
    if trials := unended.get("trials", 0):
        parts.append(f"{counted(trials, 'trial')} {_be(trials, past)} missing")
    return " and ".join(parts)


def describe_request(selection: Selection) -> str:
    """The circumstances of a selection that was requested; else empty."""
    words = []
    if without := selection.get("without"):
        words.append(f"on request, while {describe_unended(without, selection.get('of', 0), past=True)}")
    if earlier := selection.get("earlier"):
        labels = ", ".join(f"`{each.get('label', '')}`" for each in earlier)
        words.append(f"again, after the test split had been read for {labels}")
    return "; ".join(words)


def compare_means(kept: Selection, now: Selection) -> str:
    """The mean of the monitored metric now, and that of the kept selection.

    >>> compare_means({"monitor": "val/error", "mean": 0.25}, {"monitor": "val/error", "mean": 0.125})
    'val/error 0.125 instead of 0.25'
    """
    values = [value for each in (now, kept) if (value := each.get("mean")) is not None]
    return f"{now.get('monitor')} {' instead of '.join(map(number, values))}"


def _be(count: int, past: bool) -> str:
    return ("was" if past else "is") if count == 1 else ("were" if past else "are")
