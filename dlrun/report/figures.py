"""The figures of every sweep: groups ranked, metric over each swept key, learning curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from dlrun.analysis.figures.bands import LEGIBLE, GroupCurves, bands
from dlrun.analysis.figures.scale import axis_label
from dlrun.report.overview import SPLITS, JobGroup, Overview, swept_value
from dlrun.report.tables import MISSING
from dlrun.storage.journal import Curves
from dlrun.storage.results import Result, finished
from dlrun.studies.study import CaptionedFigure
from dlrun.terminal.format import counted

MAX_CURVES = 40  # groups with learning curves, the best ones
MAX_KEYS = 8  # swept keys with a figure each


def sweep_figures(overview: Overview) -> list[Callable[[], Iterator[CaptionedFigure]]]:
    """One function per figure.

    Each draws when called, so that one that fails does not lose the others.
    """
    if not overview.ranked:
        return []
    drawn: list[Callable[[Overview], Iterator[CaptionedFigure]]] = [_ranking]
    drawn += [partial(_against, key=key) for key in overview.swept[:MAX_KEYS]]
    # a grid of two keys fills a heat map; scattered values and more keys are lines
    if overview.in_order:  # both show which group is the best
        return [partial(each, overview) for each in (*drawn, _curves)]
    drawn += [_heat] if _is_grid(overview) else [_parallel] if len(overview.swept) >= 2 else []
    return [partial(each, overview) for each in (*drawn, _curves)]


def _ranking(overview: Overview) -> Iterator[CaptionedFigure]:
    from dlrun.analysis.figures.ranking import MAX_GROUPS, Row, ranking

    if len(overview.finished) < 2:  # a single dot ranks nothing
        return

    groups = overview.ranked
    rows = [
        Row(
            g.short_label(overview.swept),
            [*g.by_replicate(overview.metric).values()],
            g.spread,
            g.selected and len(groups) > 1,
        )
        for g in groups
    ]
    what = "group" if len(groups) > 1 else "run"
    cut = f" The best {MAX_GROUPS} of {counted(len(groups), 'group')}." if len(groups) > MAX_GROUPS else ""
    bar = " ◆ is the mean with its 95 % interval." if any(g.spread.n > 1 for g in groups) else ""
    if any(group.spread.vague for group in groups):
        bar += f" It has no bar where the {overview.manifest.repetitions} are too few to tell."
    star = " ★ marks the selected group." if overview.selected and len(groups) > 1 else ""
    caption = f"{axis_label(overview.metric).capitalize()} of every {what}: one dot per run.{bar}{star}{cut}"
    yield CaptionedFigure("ranking", ranking(rows, overview.metric), caption)


def _against(overview: Overview, key: str) -> Iterator[CaptionedFigure]:
    from dlrun.analysis.figures.against import against

    name = overview.metric.partition("/")[2]
    # the line goes through the best group at each value: the other keys at their best
    best: dict[Any, JobGroup] = {}
    for group in overview.ranked:
        if (value := swept_value(group.results[0], key)) is not None:
            best.setdefault(value, group)
    dots, line = {}, {}
    for split in SPLITS:
        metric = f"{split}/{name}"
        points = _points(overview.finished, key, metric)
        # test scores of the selected group alone are no curve
        if points and (split != "test" or overview.manifest.test == "every"):
            dots[split] = points
            line[split] = [p for group in best.values() for p in _points(finished(group.results), key, metric)]
    others = [other for other in overview.swept if other != key]
    if others and 2 * len(best) > len(overview.ranked):
        line = {}  # few values come twice, as in a random search: the line would follow the other keys
    through = f", with {' and '.join(others)} at the best {overview.metric}" if others else ""
    median = f" The line is the median over the {overview.manifest.repetitions}{through}." if line else ""
    drawn = against(key, name, dots, line)
    caption = f"The {name.replace('_', ' ')} against {key}: one dot per run.{median}"
    yield CaptionedFigure(f"against-{file_name(key)}", drawn, caption)


def _points(found: Sequence[Result], key: str, metric: str) -> list[tuple[Any, float]]:
    values = [(swept_value(result, key), result.metrics[metric]) for result in found if metric in result.metrics]
    return [point for point in values if point[0] is not None]


def _is_grid(overview: Overview) -> bool:
    # two keys, and a run for over half of the pairs of their values
    if len(overview.swept) != 2:
        return False
    values = [{swept_value(result, key) for result in overview.finished} for key in overview.swept]
    if any(None in each for each in values):  # a key that some choices do not have
        return False
    return 2 * len(overview.ranked) > len(values[0]) * len(values[1])


def _heat(overview: Overview) -> Iterator[CaptionedFigure]:
    from dlrun.analysis.figures.against import heat

    across, up = overview.swept
    cells = {
        (swept_value(group.results[0], across), swept_value(group.results[0], up)): group.spread.mean
        for group in reversed(overview.ranked)  # the better of two groups of one cell is written last
    }
    best = overview.selected or overview.ranked[0]
    framed = swept_value(best.results[0], across), swept_value(best.results[0], up)
    word = "selected" if overview.selected else "best"
    caption = f"The mean {axis_label(overview.metric)} over {across} and {up}; the {word} cell is framed."
    yield CaptionedFigure("heat", heat((across, up), overview.metric, cells, framed), caption)


def _parallel(overview: Overview) -> Iterator[CaptionedFigure]:
    from dlrun.analysis.figures.parallel import parallel

    rows = []
    for group in overview.ranked:
        values = {key: swept_value(group.results[0], key) for key in overview.swept}
        rows.append({**values, overview.metric: group.spread.mean})
    drawn = parallel(overview.swept, rows, overview.metric, higher_is_better=overview.manifest.higher_is_better)
    caption = (
        f"Every group as a line through its values and its mean {overview.metric}. Darker is better; the best is black."
    )
    yield CaptionedFigure("parallel", drawn, caption)


def _curves(overview: Overview) -> Iterator[CaptionedFigure]:
    groups = [group for group in overview.groups if finished(group.results)][:MAX_CURVES]
    found = [(group, [result.curves() for result in finished(group.results)]) for group in groups]
    names = [name for name in _panels(overview) if any(_changes(run, name) for _, runs in found for run in runs)]
    if not names:
        return
    title, labels = _labels(overview, groups)
    drawn = bands(
        [GroupCurves(label, runs) for label, (_, runs) in zip(labels, found, strict=True)], names, title=title
    )
    several = any(len(runs) > 1 for _, runs in found)
    what = (
        f"the median over the {overview.manifest.repetitions}, with a band from the lowest to the highest"
        if several
        else "one line per run"
    )
    rest = f" The best {LEGIBLE} groups have colours." if len(groups) > LEGIBLE else ""
    yield CaptionedFigure("learning-curves", drawn, f"Learning curves: {what}.{rest}")


def _panels(overview: Overview) -> list[str]:
    name = overview.metric.partition("/")[2]
    logged = list(dict.fromkeys(["train/loss", "val/loss", f"val/{name}"]))
    # with squared error the loss often is the metric
    if name != "loss" and all(_same(result, "val/loss", f"val/{name}") for result in overview.finished):
        logged.remove(f"val/{name}")
    return logged


def _same(result: Result, one: str, other: str) -> bool:
    metrics = result.metrics
    return one in metrics and other in metrics and math.isclose(metrics[one], metrics[other], rel_tol=1e-9)


def _changes(curves: Curves, name: str) -> bool:
    return len(curves.get(name, ())) > 1


def _labels(overview: Overview, groups: Sequence[JobGroup]) -> tuple[str, list[str]]:
    # a single key is the legend's title, and its values are the labels
    if len(overview.swept) != 1:
        return "", [group.short_label(overview.swept) for group in groups]
    key = overview.swept[0]
    values = [swept_value(group.results[0], key) for group in groups]
    return key, [MISSING if value is None else str(value) for value in values]


def file_name(key: str) -> str:
    """A key as a file name on every system."""
    return "".join(sign if sign.isalnum() or sign in "._-" else "-" for sign in key)
