"""The sentences of a report; an empty one is left out."""

from __future__ import annotations

import math
from collections import Counter

from dlrun.analysis.statistics import BOOTSTRAP_FROM, describe_difference, paired_difference
from dlrun.report.overview import Overview
from dlrun.storage.identity import PART_NAMES, differing


def job_counts(overview: Overview) -> str:
    """Jobs, groups, and jobs by status."""
    statuses = Counter(result.status for result in overview.results)
    jobs = len(overview.results)
    by_status = ", ".join(f"{n} {status}" for status, n in statuses.most_common())
    reused = sum(result.reused for result in overview.results)
    note = (
        f" {reused} of them {'reuse' if reused > 1 else 'reuses'} a run of an earlier sweep with the same identity."
        if reused
        else ""
    )
    groups = len(overview.groups)
    return f"{jobs} job{'s' * (jobs != 1)} in {groups} group{'s' * (groups != 1)}: {by_status}.{note}"


def selection(overview: Overview) -> str:
    """The rule of the selection."""
    better = "highest" if overview.manifest.higher_is_better else "lowest"
    if len(overview.groups) == 1:
        return "Only the seed varies, so nothing was selected."
    if overview.selected is None:
        return f"No configuration was selected. Groups are ordered by mean {overview.metric}, the {better} first."
    seeds = " over the seeds" if any(len(group.results) > 1 for group in overview.groups) else ""
    mean = f"the {better} mean {overview.manifest.monitor}{seeds}"
    return f"Selected: the group with {mean}, among the groups whose runs all finished."


def lead(overview: Overview) -> str:
    """The paired difference between the best group and the runner-up."""
    # an incomplete group lacks the seeds that went wrong, so it is no runner-up
    ranked = [group for group in overview.groups if group.complete]
    if len(ranked) < 2:
        return ""
    first, second = ranked[:2]
    if min(len(first.results), len(second.results)) < 2:
        return (
            "With one seed per group, any difference between groups may be seed noise: add 'seed=range(5)' to the "
            "command."
        )
    found = paired_difference(
        second.by_seed(overview.metric),
        first.by_seed(overview.metric),
        higher_is_better=overview.manifest.higher_is_better,
    )
    if not found.n:  # no common seed
        return ""
    return describe_difference(
        found, metric=overview.metric, first=f"the runner-up `{second.label}`", second=f"`{first.label}`"
    )


def test_reads(overview: Overview) -> str:
    """Reads of the test split, and the use of its numbers."""
    reads = overview.test_reads
    runs = sum(result.summary.test_reads > 0 for result in overview.results if not result.reused)
    times = f"It was read {reads} time{'s' * (reads != 1)}, by {runs} run{'s' * (runs != 1)} of this sweep."
    earlier = sum(result.summary.test_reads > 0 for result in overview.results if result.reused)
    if earlier:
        times += f" {earlier} reused run{'s' * (earlier != 1)} had read it for another sweep."
    if overview.manifest.test == "every":
        return (
            "Every run reads the test split (evaluation.test: every): its numbers describe the runs and must not be "
            f"used to select one. {times}"
        )
    if reads == earlier == 0:
        return "The test split was not read."
    if len(overview.groups) == 1:
        return f"Each run read the test split after all had finished. {times}"
    return f"Only the selected configuration read the test split, after it was selected. {times}"


def selection_bias(overview: Overview) -> str:
    """The bias of the selected group's validation numbers."""
    if overview.selected is None or len(overview.groups) == 1:
        return ""
    # the best of several noisy means tends to look better than it is
    test = " Its test numbers are not." if overview.manifest.test == "final" else ""
    return (
        f"The validation numbers of the selected group are the best of {len(overview.groups)}, so they are slightly "
        f"too good.{test}"
    )


def interval_note(overview: Overview) -> str:
    """The method behind the intervals."""
    sizes = [group.spread.n for group in overview.groups if math.isfinite(group.spread.low)]
    if not sizes:
        return ""
    few = "Student's t" if min(sizes) < BOOTSTRAP_FROM else ""
    many = "the bootstrap with expanded percentiles" if max(sizes) >= BOOTSTRAP_FROM else ""
    both = f"{few} (below {BOOTSTRAP_FROM} seeds) and {many}" if few and many else few or many
    return f"Intervals are 95 % intervals of the mean, by {both}. sd is the sample standard deviation over the seeds."


def code(overview: Overview) -> str:
    """The differences of the finished runs, in a sentence.

    Beside what was swept: sources, modules, device, precision, torch.
    """
    parts = [dict(result.summary.identity_parts) for result in overview.finished]
    swept = PART_NAMES["config"], PART_NAMES["data"]
    found = dict.fromkeys(word for each in parts for word in differing(parts[0], each) if word not in swept)
    return f"the runs differ in {', '.join(found)}" if found else "nothing but what was swept: all have the same code"
