"""The sentences of a report; an empty one is left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from dlrun.analysis.intervals import VAGUE
from dlrun.analysis.simultaneous import differences
from dlrun.analysis.statistics import BOOTSTRAP_FROM, Difference, describe_difference
from dlrun.report.overview import JobGroup, Overview, range_of
from dlrun.storage.identity import PART_NAMES, differing
from dlrun.storage.jobs.job import Replicate
from dlrun.storage.summary import Summary
from dlrun.terminal.format import counted

SHOWN = 5
"""Groups that a sentence names."""


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
    return f"{counted(jobs, 'job')} in {counted(groups, 'group')}: {by_status}.{note}"


def lead(overview: Overview) -> str:
    """The paired differences between the best group and the others, the runner-up's in words."""
    # an incomplete group lacks the seeds that went wrong, so it is no runner-up
    ranked = [group for group in overview.groups if group.complete]
    if len(ranked) < 2 or overview.in_order:
        return ""
    first, second, *others = ranked
    if min(first.size, second.size) < 2:
        return (
            "With one seed per group, any difference between groups may be seed noise: add 'seed=range(5)' to the "
            "command."
        )
    runner_up, *rest = _minus(first, [second, *others], overview)
    if not runner_up.n:  # no common seed
        return ""
    told = describe_difference(
        runner_up,
        metric=overview.metric,
        first=f"the runner-up `{second.label}`",
        second=f"`{first.label}`",
        over=overview.manifest.repetition,
    )
    same = [group for group, found in zip(others, rest, strict=True) if not (found.significant or found.constant)]
    if not others:
        return told
    also = _also(same, len(others), either=not (runner_up.significant or runner_up.constant))
    return " ".join(filter(None, [told, also, "These intervals hold for all groups at once."]))


def _also(same: Sequence[JobGroup], others: int, *, either: bool) -> str:
    """Further groups that may be as good as the best; empty if there are none."""
    if not same:
        return ""
    listed = ", ".join(f"`{group.label}`" for group in same[:SHOWN]) + ", …" * (len(same) > SHOWN)
    who = f"{len(same)} of the other {others} groups"
    if len(same) == others:
        who = "The other group" if others == 1 else f"The other {others} groups"
    verb = "has" if len(same) == 1 else "have"
    return f"{who} ({listed}) {verb} no significant difference from the best{' either' * either}."


def _minus(first: JobGroup, others: Sequence[JobGroup], overview: Overview) -> list[Difference]:
    """The first group minus each other one, each interval widened for the choice."""
    own, *values = (group.by_replicate(overview.metric) for group in (first, *others))
    found = differences(
        own,
        values,
        rivals=[(own, values)],
        higher_is_better=overview.manifest.higher_is_better,
        possible=range_of(overview.metric, [result.summary for result in overview.finished]),
    )
    return [-difference for difference in found]


def describe_chance(summaries: Sequence[Summary], metric: str) -> str:
    """Which chance an interval over these runs covers."""
    name = {"val": "validation"}.get(metric.partition("/")[0], metric.partition("/")[0])
    if len({summary.samples(metric) or summary.data.get("fingerprint") for summary in summaries}) > 1:
        return f"Intervals cover the chance of the seeds, {name} samples included, which differ from seed to seed."
    return f"Intervals cover the chance of seeds. All runs share the {name} samples, whose chance they do not cover."


def describe_folds(replicates: Iterable[Replicate]) -> str:
    """What intervals over folds are worth; nothing for fewer than two of them."""
    folds = {replicate.fold for replicate in replicates} - {-1}
    if len(folds) < 2:
        return ""
    # C. Nadeau and Y. Bengio, Inference for the Generalization Error, 2003: n_test / n_train adds to a mean's variance
    factor = math.sqrt(1 + len(folds) / (len(folds) - 1))
    return (
        "Folds train on nearly the same samples, so their values are no independent ones: intervals and differences "
        f"over folds look more certain than they are, by a factor of about {factor:.1f}."
    )


def interval_note(overview: Overview) -> str:
    """The method behind the intervals."""
    vague, repeated = "", overview.manifest.repetitions
    if any(group.spread.vague for group in overview.groups):
        vague = (
            f"Too few {repeated} to tell the mean: so it says beside an interval that reaches over all that is "
            f"possible, or {VAGUE:.0f} times as far as the largest value. Look at the best, the median and the worst, "
            f"or add {repeated}."
        )
    sizes = [group.spread.n for group in overview.groups if math.isfinite(group.spread.low)]
    if not sizes:
        return vague
    few = "Student's t" if min(sizes) < BOOTSTRAP_FROM else ""
    many = "the bootstrap with expanded percentiles" if max(sizes) >= BOOTSTRAP_FROM else ""
    both = f"{few} (below {BOOTSTRAP_FROM} {repeated}) and {many}" if few and many else few or many
    summaries = [result.summary for result in overview.finished]
    of_folds = describe_folds(result.job.replicate for result in overview.finished)
    told = (
        f"Intervals in the table are 95 % intervals of the mean, by {both}, wider for skewed values. sd is the "
        f"sample standard deviation over the {repeated}. "
        f"{of_folds or describe_chance(summaries, overview.metric)}"
    )
    return f"{told} {vague}" if vague else told


def code(overview: Overview) -> str:
    """The differences of the finished runs, in a sentence.

    Beside what was swept: sources, modules, device, precision, torch.
    """
    parts = [dict(result.summary.identity_parts) for result in overview.finished]
    swept = PART_NAMES["config"], PART_NAMES["data"]
    found = dict.fromkeys(word for each in parts for word in differing(parts[0], each) if word not in swept)
    return f"the runs differ in {', '.join(found)}" if found else "nothing but what was swept: all have the same code"
