"""A sweep's selection as its summary has it, and the words for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from dlrun.terminal.format import number


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
        parts.append(f"{count} of {jobs} job{'s' * (jobs != 1)} {_be(count, past)} {' or '.join(statuses)}")
    if trials := unended.get("trials", 0):
        parts.append(f"{trials} trial{'s' * (trials != 1)} {_be(trials, past)} missing")
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
