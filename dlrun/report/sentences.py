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
    changed = [str(result.job.n) for result in overview.results if result.changed]
    if changed:
        note += f" Resumed with other settings or code, and so not selected: {', '.join(changed)}."
    groups = len(overview.groups)
    return f"{jobs} job{'s' * (jobs != 1)} in {groups} group{'s' * (groups != 1)}: {by_status}.{note}"


def lead(overview: Overview) -> str:
    """The paired difference between the best group and the runner-up."""
    # an incomplete group lacks the seeds that went wrong, so it is no runner-up
    ranked = [group for group in overview.groups if group.complete]
    if len(ranked) < 2 or overview.in_order:
        return ""
    first, second = ranked[:2]
    if min(first.size, second.size) < 2:
        return (
            "With one seed per group, any difference between groups may be seed noise: add 'seed=range(5)' to the "
            "command."
        )
    found = paired_difference(
        second.by_replicate(overview.metric),
        first.by_replicate(overview.metric),
        higher_is_better=overview.manifest.higher_is_better,
    )
    if not found.n:  # no common seed
        return ""
    return describe_difference(
        found, metric=overview.metric, first=f"the runner-up `{second.label}`", second=f"`{first.label}`"
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
