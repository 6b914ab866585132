"""The paired differences of sides, after a check that they are comparable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlrun.analysis.comparability import same_quantity
from dlrun.analysis.simultaneous import differences
from dlrun.analysis.statistics import Difference
from dlrun.analysis.value_range import ValueRange
from dlrun.errors import UserError, did_you_mean
from dlrun.report.overview import range_of
from dlrun.report.sides import Side, repetition
from dlrun.storage.identity import PART_NAMES, differing, differing_keys, format_entry
from dlrun.storage.jobs.job import Replicate
from dlrun.storage.summary import DataSummary, Summary, split_sizes

SHOWN = 10
"""Keys of two configurations that are listed."""


def compare(sides: Sequence[Side], metric: str, *, higher_is_better: bool) -> list[Difference]:
    """Each other side minus the first, over their common seeds; all intervals hold at once.

    A side that was selected is compared with regard to that. Raises `UserError` without a common seed, if the metric
    was measured on other samples, or if its unit differs.
    """
    first, *others = sides
    for other in others:
        _check_comparable(first, other, metric)
    # by their runs: a group that is named, too, is one of those that the other was selected among
    values = {side.folders: side.values(metric) for side in (*sides, *(r for side in sides for r in side.rivals))}
    return differences(
        values[first.folders],
        [values[other.folders] for other in others],
        rivals=[(values[side.folders], [values[r.folders] for r in side.rivals]) for side in chosen(sides, metric)],
        higher_is_better=higher_is_better,
        possible=possible(sides, metric),
    )


def chosen(sides: Sequence[Side], metric: str) -> list[Side]:
    """The sides that were selected by values such as these."""
    # the test split selects nothing, where there is a validation split
    return [side for side in sides if side.rivals and (not metric.startswith("test/") or side.metric == metric)]


def group_count(sides: Sequence[Side], metric: str) -> int:
    """How many groups the intervals of `compare` hold for."""
    return len({side.folders for side in (*sides, *(rival for own in chosen(sides, metric) for rival in own.rivals))})


def possible(sides: Sequence[Side], metric: str) -> ValueRange:
    """What the values of a metric can be."""
    return range_of(metric, [summary for side in sides for summary in side.summaries.values()])


def _check_comparable(first: Side, second: Side, metric: str) -> None:
    common = sorted({*first.values(metric)} & {*second.values(metric)})
    if not common:
        have = " and ".join(f"`{s.label}` has {_listed(s.values(metric))}" for s in (first, second))
        raise UserError(
            f"The sides have no common seed: {have}. Run both with the same seeds: `dlrun train -m … 'seed=range(5)'`."
        )
    for seed in common:
        _same_samples(first, second, seed, metric)
    # one seed stands for all: the jobs of a side differ in nothing else
    _same_unit(first, second, common[0], metric)


def describe_sides(first: Side, second: Side) -> str:
    """The differences of two sides, in a sentence.

    These are keys of the configuration, and other parts of the identity.
    """
    seed = next(seed for seed in first.runs if seed in second.runs)
    one, other = first.summaries[seed], second.summaries[seed]
    keys = differing_keys(first.configuration(seed), second.configuration(seed))
    shown = "; ".join(keys[:SHOWN] + ["…"] * (len(keys) > SHOWN))  # a value of two sides has a comma
    words = [word for word in differing(one.known_parts(), other.known_parts()) if word != PART_NAMES["config"]]
    nothing = f"nothing but the {repetition([first, second])}s"
    found = "; ".join(([f"the configuration ({shown})"] if keys else []) + words) or nothing
    unknown = "" if one.identity_parts and other.identity_parts else "; of the older run no sources are known"
    return f"`{first.label}` and `{second.label}` differ in {found}{unknown}."


def metric_of(sides: Sequence[Side], requested: str | None) -> str:
    """The `requested` metric, else the first side's own.

    Raises `UserError` if a side lacks it. A test metric is used only on request.
    """
    metric = requested or sides[0].metric
    if not requested and metric.startswith("test/"):
        raise UserError(
            f"`{sides[0].label}` has no validation split to compare by. To compare by its test split, add --metric "
            f"{metric}; select nothing by it."
        )
    for side in sides:
        if side.values(metric):
            continue
        have = {name for summary in side.summaries.values() for name in summary.metrics}
        if metric.startswith("test/"):
            raise UserError(
                f"`{side.label}` has not read the test split, so it has no {metric}. It has: "
                f"{', '.join(sorted(name for name in have if not name.startswith('test/')))}."
            )
        raise UserError(
            f"`{side.label}` has no {metric}.{did_you_mean(metric, have)} It has: {', '.join(sorted(have))}."
        )
    return metric


def direction(sides: Sequence[Side], metric: str, *, given: str | None = None) -> bool:
    """True if higher values of the metric are better.

    `given` is "higher" or "lower", for a metric that does not say it. Raises `UserError` if that is not known, or if
    the sides contradict each other.
    """
    if given:
        return given == "higher"
    known = {side.higher_is_better(metric) for side in sides} - {None}
    if len(known) == 1:
        return bool(known.pop())
    why = "the runs contradict each other" if known else "nobody says"
    raise UserError(
        f"Which values of {metric} are better: {why}. Add `--better higher` or `--better lower`. A metric of yours "
        f"says it by its attribute `higher_is_better`."
    )


def _same_samples(first: Side, second: Side, seed: Replicate, metric: str) -> None:
    summaries = [side.summaries[seed] for side in (first, second)]
    one, other = (summary.data for summary in summaries)
    samples = {summary.samples(metric) for summary in summaries}
    # runs of before 0.2 have the fingerprint of the whole data set alone
    if len(samples) == 1 if None not in samples else one.get("fingerprint") == other.get("fingerprint"):
        return
    datasets = [side.configuration(seed).get("dataset") for side in (first, second)]
    changed = _changes(*(part if isinstance(part, dict) else {} for part in datasets))
    raise UserError(
        f"`{first.label}` and `{second.label}` have {metric} of different samples, so they cannot be compared. "
        f"At seed {seed}: {_describe(one)} against {_describe(other)}."
        + (f" Different keys: {', '.join(changed)}." if changed else "")
    )


def _same_unit(first: Side, second: Side, seed: Replicate, metric: str) -> None:
    one, other = (side.summaries[seed] for side in (first, second))
    units = one.unit(metric), other.unit(metric)
    if metric.endswith("/loss") and None in units:  # of a run of before 0.2
        units = tuple(str(side.configuration(seed).get("loss")) for side in (first, second))  # type: ignore[assignment]
    if None in units or units[0] == units[1]:
        return
    raise UserError(
        f"{metric} is not the same quantity on both sides: `{first.label}` has {units[0]}, `{second.label}` "
        f"{units[1]}. {_instead(one, other, metric)}"
    )


def _instead(one: Summary, other: Summary, metric: str) -> str:
    split = metric.partition("/")[0]
    name = same_quantity([one.quantities, other.quantities])
    return f"Compare by something else, as --metric {split}/{name or 'error'}."


def _changes(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    keys = dict.fromkeys([*one, *other])
    changed = [key for key in keys if one.get(key) != other.get(key)]
    return [f"dataset.{key}: {format_entry(one, key)} against {format_entry(other, key)}" for key in changed]


def _describe(data: DataSummary) -> str:
    sizes = ", ".join(f"{size} {name}" for name, size in split_sizes(data).items())
    return f"{data.get('name', 'unknown data')} ({sizes}; fingerprint {str(data.get('fingerprint'))[:12]})"


def _listed(values: dict[Replicate, float]) -> str:
    seeds = [str(seed) for seed in sorted(values)]
    return ", ".join(seeds[:8]) + (" …" if len(seeds) > 8 else "") if seeds else "none"
