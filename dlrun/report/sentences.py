"""What a report says in words: how many jobs came to what, how one was chosen, how often the test split was read."""

from __future__ import annotations

import math
from collections import Counter

from dlrun.analysis.statistics import BOOTSTRAP_FROM, describe_difference, paired_difference
from dlrun.report.overview import Overview


def job_counts(overview: Overview) -> str:
    """Return how many jobs there are, and what became of them."""
    statuses = Counter(result.status for result in overview.results)
    jobs = len(overview.results)
    told = ", ".join(f"{n} {status}" for status, n in statuses.most_common())
    reused = sum(result.reused for result in overview.results)
    also = f"; {reused} of them are runs of an earlier sweep with the same identity" if reused else ""
    groups = len(overview.groups)
    return f"{jobs} job{'s' * (jobs != 1)} in {groups} group{'s' * (groups != 1)}: {told}{also}."


def selection(overview: Overview) -> str:
    """Return how a configuration was selected, if one was."""
    better = "highest" if overview.manifest.higher_is_better else "lowest"
    if len(overview.groups) == 1:
        return "Nothing but the seed was varied, so nothing was chosen."
    if overview.selected is None:
        order = f"Groups are ordered by their mean {overview.metric}, the {better} first."
        return f"No configuration has been selected. {order}"
    over = "over its seeds " if any(len(group.results) > 1 for group in overview.groups) else ""
    mean = f"{better} mean {overview.manifest.monitor} {over}"
    return f"Selected is the group with the {mean}of those whose seeds all finished."


def lead(overview: Overview) -> str:
    """Return whether the best group is better than the next by more than seed noise (empty for one group)."""
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
    if not found.n:
        return ""
    return describe_difference(
        found, metric=overview.metric, first=f"the runner-up `{second.label}`", second=f"`{first.label}`"
    )


def test_reads(overview: Overview) -> str:
    """Return who read the test split, how often, and what that means for its numbers."""
    reads, runs = overview.test_reads, sum(result.summary.test_reads > 0 for result in overview.results)
    times = f"It was read {reads} time{'s' * (reads != 1)} by {runs} run{'s' * (runs != 1)} of this sweep."
    if overview.manifest.test == "every":
        return (
            "The test split was read by every run (evaluation.test: every): its numbers are for looking at the "
            f"curve, not for choosing. {times}"
        )
    if reads == 0:
        return "The test split was not read."
    if len(overview.groups) == 1:
        return f"The test split was read by each run, after all had finished. {times}"
    return f"The test split was read for the selected configuration alone, after it was selected. {times}"


def selection_bias(overview: Overview) -> str:
    """Return what selection does to the selected group's validation numbers (empty if nothing was selected)."""
    if overview.selected is None or len(overview.groups) == 1:
        return ""
    told = f"The validation numbers of the selected group are those of the best of {len(overview.groups)}, and so"
    return (
        f"{told} a little too good; those of the test split are not."
        if overview.manifest.test == "final"
        else f"{told} a little too good."
    )


def interval_note(overview: Overview) -> str:
    """Return how the intervals were found."""
    sizes = [group.spread.n for group in overview.groups if math.isfinite(group.spread.low)]
    if not sizes:
        return ""
    few = "Student's t" if min(sizes) < BOOTSTRAP_FROM else ""
    many = "the bootstrap with expanded percentiles" if max(sizes) >= BOOTSTRAP_FROM else ""
    both = f"{few} (below {BOOTSTRAP_FROM} seeds) and {many}" if few and many else few or many
    return f"Intervals of the mean: 95 %, by {both}. sd is the sample standard deviation over the seeds."
