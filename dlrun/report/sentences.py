"""What a report says in words: how many jobs came to what, how one was chosen, how often the test split was read."""

from __future__ import annotations

import math
from collections import Counter

from dlrun.analysis.statistics import BOOTSTRAPPED, paired, verdict
from dlrun.report.overview import Overview


def counted(seen: Overview) -> str:
    """Return how many jobs there are, and what became of them."""
    statuses = Counter(result.status for result in seen.results)
    jobs = len(seen.results)
    told = ", ".join(f"{n} {status}" for status, n in statuses.most_common())
    reused = sum(result.reused for result in seen.results)
    also = f"; {reused} of them are runs of an earlier sweep with the same identity" if reused else ""
    return f"{jobs} job{'s' * (jobs != 1)} in {len(seen.groups)} group{'s' * (len(seen.groups) != 1)}: {told}{also}."


def chosen(seen: Overview) -> str:
    """Return how a configuration was selected, if one was."""
    better = "highest" if seen.what.higher_is_better else "lowest"
    if len(seen.groups) == 1:
        return "Nothing but the seed was varied, so nothing was chosen."
    if seen.selected is None:
        order = f"Groups are ordered by their mean {seen.metric}, the {better} first."
        return f"No configuration has been selected. {order}"
    over = "over its seeds " if any(len(group.results) > 1 for group in seen.groups) else ""
    return f"Selected is the group with the {better} mean {seen.what.monitor} {over}of those whose seeds all finished."


def lead(seen: Overview) -> str:
    """Return whether the best group is better than the next by more than seed noise (empty for one group)."""
    ranked = [group for group in seen.groups if group.complete]
    if len(ranked) < 2:
        return ""
    first, second = ranked[:2]
    if min(len(first.results), len(second.results)) < 2:
        return (
            "With one seed a group, no difference between groups can be told from seed noise: add 'seed=range(5)' to "
            "the command."
        )
    found = paired(second.by_seed(seen.metric), first.by_seed(seen.metric), higher_is_better=seen.what.higher_is_better)
    if not found.n:
        return ""
    return verdict(found, metric=seen.metric, first=f"`{second.label}`, the next,", second=f"`{first.label}`")


def read(seen: Overview) -> str:
    """Return who read the test split, how often, and what that means for its numbers."""
    reads, runs = seen.test_reads, sum(result.summary.get("test_reads", 0) > 0 for result in seen.results)
    times = f"It was read {reads} time{'s' * (reads != 1)} by {runs} run{'s' * (runs != 1)} of this sweep."
    if seen.what.test == "every":
        return (
            "The test split was read by every run (evaluation.test: every): its numbers are for looking at the "
            f"curve, not for choosing. {times}"
        )
    if reads == 0:
        return "The test split was not read."
    if len(seen.groups) == 1:
        return f"The test split was read by each run, after all had finished. {times}"
    return f"The test split was read for the selected configuration alone, after it was selected. {times}"


def bias(seen: Overview) -> str:
    """Return what selection does to the selected group's validation numbers (empty if nothing was selected)."""
    if seen.selected is None or len(seen.groups) == 1:
        return ""
    told = f"The validation numbers of the selected group are those of the best of {len(seen.groups)}, and so"
    return (
        f"{told} a little too good; those of the test split are not."
        if seen.what.test == "final"
        else f"{told} a little too good."
    )


def intervals(seen: Overview) -> str:
    """Return how the intervals were found."""
    sizes = [group.spread.n for group in seen.groups if math.isfinite(group.spread.low)]
    if not sizes:
        return ""
    few = "Student's t" if min(sizes) < BOOTSTRAPPED else ""
    many = "the bootstrap with expanded percentiles" if max(sizes) >= BOOTSTRAPPED else ""
    both = f"{few} (below {BOOTSTRAPPED} seeds) and {many}" if few and many else few or many
    return f"Intervals of the mean: 95 %, by {both}. sd is the sample standard deviation over the seeds."
