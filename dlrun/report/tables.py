"""The tables of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dlrun.analysis.figures.scale import SPLIT_NAMES
from dlrun.analysis.statistics import Spread
from dlrun.report.document import Table
from dlrun.report.overview import SPLITS, JobGroup, Overview, swept_value
from dlrun.storage.results import Result
from dlrun.terminal.format import duration

MAX_GROUPS = 60  # listed on the page; runs.csv has all
MISSING = "–"


def ranking(overview: Overview, most: int = MAX_GROUPS) -> Table:
    """The ranked groups with their spread, the best first."""
    shown = overview.groups[:most]
    strong, over = _selected_row(shown), overview.manifest.repetition
    # one seed per group has no spread: show steps and time instead
    if all(group.size == 1 for group in overview.groups):
        rows = [[group.label, *_single(group, overview)] for group in shown]
        return Table(["", overview.metric, "best step", "steps", "train time"], rows, strong)
    head = [
        "",
        overview.manifest.repetitions,
        f"mean ± sd of {overview.metric}",
        "worst",
        "median",
        "best",
        "95 % interval of the mean",
    ]
    return Table(head, [[group.label, _seeds(group), *_cells(group.spread, over)] for group in shown], strong)


def by_stratum(overview: Overview) -> Table:
    """What is selected in each data set: a row each, with its validation and its test."""
    name = overview.metric.partition("/")[2]
    rows = []
    for part in overview.strata:
        group = part.selected or (part.groups[0] if len(part.groups) == 1 else None)
        if group is None:
            rows.append([part.label, MISSING, MISSING, MISSING, MISSING, MISSING])
            continue
        higher = part.manifest.higher_is_better
        tested = group.spread_of(f"test/{name}", higher_is_better=higher)
        rows.append(
            [
                part.label,
                group.label,
                _seeds(group),
                format_mean(group.spread),
                format_mean(tested),
                format_interval(tested, overview.manifest.repetition),
            ]
        )
    repeated = overview.manifest.repetitions
    return Table(["", "selected", repeated, overview.metric, f"test/{name}", "95 % interval of the test mean"], rows)


def splits(overview: Overview) -> Table | None:
    """The mean of the ranking metric by group and split."""
    name = overview.metric.partition("/")[2]
    metrics = [f"{split}/{name}" for split in SPLITS]
    present = [m for m in metrics if any(m in result.metrics for result in overview.finished)]
    if len(present) < 2:
        return None  # the ranking shows it already
    shown = overview.groups[:MAX_GROUPS]
    rows = [[group.label, *(format_mean(group.spread_of(metric)) for metric in present)] for group in shown]
    strong = _selected_row(shown)
    return Table(["", *(f"{SPLIT_NAMES[m.partition('/')[0]]} {name}" for m in present)], rows, strong)


def test_scores(overview: Overview, group: JobGroup) -> Table | None:
    """A group's spread on the test split, by metric."""
    metrics = list(dict.fromkeys(m for r in group.results for m in r.metrics if m.startswith("test/")))
    if not metrics:
        return None
    ranked = f"test/{overview.metric.partition('/')[2]}"
    metrics.sort(key=lambda m: m != ranked)  # the ranking metric first
    rows = []
    for metric in metrics:
        known = {overview.manifest.higher_is_better} if metric == ranked else group.directions(metric)
        # a metric that nobody gave a direction has no best and no worst
        higher = known.pop() if len(known) == 1 else None
        found = group.spread_of(metric, higher_is_better=bool(higher))
        cells = _cells(found, overview.manifest.repetition)
        rows.append([metric, str(found.n), *(cells if higher is not None else [cells[0], "", cells[2], "", cells[4]])])
    return Table(
        ["", overview.manifest.repetitions, "mean ± sd", "worst", "median", "best", "95 % interval of the mean"],
        rows,
    )


def failures(found: Sequence[Result]) -> Table:
    """The jobs that did not finish, with the reason."""
    rows = []
    for result in found:
        reason = result.summary.error or ("not started" if result.status == "missing" else "")
        at = result.summary.steps
        rows.append(
            [
                str(result.job.n),
                " ".join(result.job.overrides),
                result.status,
                reason or (f"at step {at}" if at else ""),
            ]
        )
    return Table(["job", "overrides", "status", "reason"], rows, words=True)


def variables(overview: Overview) -> Table:
    """The swept keys with their values."""
    rows = []
    for key in overview.manifest.swept:
        values = dict.fromkeys(
            result.job.seed if key == "seed" else swept_value(result, key) for result in overview.results
        )
        listed = [f"{v:g}" if isinstance(v, float) else str(v) for v in values if v is not None]
        text = ", ".join(listed) if len(listed) <= 12 else f"{', '.join(listed[:6])} … {listed[-1]}"
        text += f"; {MISSING} where it does not apply" if None in values else ""
        rows.append([key, str(len(listed)), text])
    return Table(["swept", "", "values"], rows, words=True)


def format_mean(found: Spread) -> str:
    """Mean ± standard deviation, two digits of the latter.

    >>> format_mean(Spread(3, 0.0213456, 0.00123, 0, 0, 0, 0, 0)), format_mean(Spread(1, 0.5, math.nan, 0, 0, 0, 0, 0))
    ('0.0213 ± 0.0012', '0.5')
    >>> format_mean(Spread(3, 220.83, 112.4, 0, 0, 0, 0, 0)), format_mean(Spread(3, 220.83, 11.24, 0, 0, 0, 0, 0))
    ('221 ± 110', '221 ± 11')
    """
    if not found.n:
        return MISSING
    if found.n == 1 or not found.sd:
        return f"{found.mean:.4g}"
    # decimals that show two digits of the standard deviation
    places = 1 - math.floor(math.log10(found.sd))
    # an sd from 10⁶ on or below 10⁻⁷: `g` writes an exponent
    if not -4 <= places <= 8:
        return f"{found.mean:.4g} ± {found.sd:.2g}"
    decimals = max(0, places)
    return f"{found.mean:.{decimals}f} ± {round(found.sd, places):.{decimals}f}"


def format_number(value: float) -> str:
    """Four significant digits; a dash if not finite."""
    return f"{value:.4g}" if math.isfinite(value) else MISSING


def _selected_row(shown: Sequence[JobGroup]) -> frozenset[int]:
    """The selected group's row, if there was a choice."""
    return frozenset(i for i, group in enumerate(shown) if group.selected and len(shown) > 1)


def _cells(found: Spread, over: str) -> list[str]:
    interval = format_interval(found, over)
    worst = "not finite" if found.broken else format_number(found.worst)
    return [format_mean(found), worst, format_number(found.median), format_number(found.best), interval]


def format_interval(found: Spread, over: str = "seed") -> str:
    """The interval of a mean, with a word if it says nothing; a dash without one. `over` is that for a repetition."""
    if math.isnan(found.low):
        return MISSING
    return f"{found.low:.4g} to {found.high:.4g}" + (f" (too few {over}s)" if found.vague else "")


def _seeds(group: JobGroup) -> str:
    total, finite = group.size, group.spread.n
    return str(finite) if finite == total else f"{finite} of {total}"


def _single(group: JobGroup, overview: Overview) -> list[str]:
    result = group.results[0]
    if result.status != "finished":
        return [result.status, MISSING, MISSING, MISSING]
    summary = result.summary
    seconds = summary.train_seconds
    value = format_number(result.metrics[overview.metric]) if overview.metric in result.metrics else MISSING
    return [
        value,
        str(MISSING if summary.best_step is None else summary.best_step),
        str(MISSING if summary.steps is None else summary.steps),
        MISSING if seconds is None else duration(seconds),
    ]
