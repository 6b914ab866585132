"""The figures that any sweep gets, from its finished runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from dlrun.analysis.figures.bands import LEGIBLE, Bundle, bands
from dlrun.analysis.figures.scale import words
from dlrun.report.overview import SPLITS, Group, Overview, value
from dlrun.storage.results import Curves, Result, finished
from dlrun.studies.study import Finding

CURVED = 40
"""Of so many groups the curves are drawn, the best of them."""
VARIABLES = 8
"""Against so many swept variables the metric is drawn."""


def pictures(seen: Overview) -> list[Callable[[], Iterator[Finding]]]:
    """Return what draws the figures: the groups ranked, the metric against what was swept, the learning curves.

    Each is drawn when it is called, so that one that fails takes no other along.
    """
    if not seen.ranked:
        return []
    drawn: list[Callable[[Overview], Iterator[Finding]]] = [_ranking]
    drawn += [partial(_against, key=key) for key in seen.swept[:VARIABLES]]
    drawn += [_heat] if _is_grid(seen) else [_parallel] if len(seen.swept) >= 2 else []
    return [partial(each, seen) for each in (*drawn, _curves)]


def _ranking(seen: Overview) -> Iterator[Finding]:
    from dlrun.analysis.figures.ranking import MOST, Row, ranking

    if len(seen.finished) < 2:
        return

    groups = seen.ranked
    rows = [
        Row(g.shown(seen.swept), [*g.by_seed(seen.metric).values()], g.spread, g.selected and len(groups) > 1)
        for g in groups
    ]
    what = "group" if len(groups) > 1 else "run"
    cut = f" The best {MOST} of {len(groups)} groups." if len(groups) > MOST else ""
    bar = " ◆ is the mean, with its 95 % interval." if any(g.spread.n > 1 for g in groups) else ""
    star = " ★ was selected." if seen.selected and len(groups) > 1 else ""
    caption = f"{words(seen.metric).capitalize()} of every {what}: a dot a run.{bar}{star}{cut}"
    yield Finding("ranking", ranking(rows, seen.metric), caption)


def _against(seen: Overview, key: str) -> Iterator[Finding]:
    from dlrun.analysis.figures.against import against

    name = seen.metric.partition("/")[2]
    # of the others the best at each value: what the variable can do
    best: dict[Any, Group] = {}
    for group in seen.ranked:
        best.setdefault(value(group.results[0], key), group)
    dots, line = {}, {}
    for split in SPLITS:
        metric = f"{split}/{name}"
        points = _points(seen.finished, key, metric)
        # of the selected group alone, the test is no curve
        if points and (split != "test" or seen.what.test == "every"):
            dots[split] = points
            line[split] = [p for group in best.values() for p in _points(finished(group.results), key, metric)]
    others = [other for other in seen.swept if other != key]
    if others and 2 * len(best) > len(seen.ranked):
        line = {}  # hardly a value comes twice, as in a random search: a line through all is of the other variables
    through = f" at the {seen.metric}-best of {' and '.join(others)}" if others else ""
    median = f", the line the median over the seeds{through}" if line else ""
    drawn = against(key, name, dots, line)
    caption = f"The {name.replace('_', ' ')} against {key}: every run a dot{median}."
    yield Finding(f"against-{_file(key)}", drawn, caption)


def _points(found: Sequence[Result], key: str, metric: str) -> list[tuple[Any, float]]:
    return [(value(result, key), result.metrics[metric]) for result in found if metric in result.metrics]


def _is_grid(seen: Overview) -> bool:
    """Return whether two variables were swept, and most pairs of their values."""
    if len(seen.swept) != 2:
        return False
    values = [{value(result, key) for result in seen.finished} for key in seen.swept]
    return 2 * len(seen.ranked) > len(values[0]) * len(values[1])


def _heat(seen: Overview) -> Iterator[Finding]:
    from dlrun.analysis.figures.against import heat

    across, up = seen.swept
    cells = {
        (value(group.results[0], across), value(group.results[0], up)): group.spread.mean
        for group in reversed(seen.ranked)
    }
    best = seen.selected or seen.ranked[0]
    framed = value(best.results[0], across), value(best.results[0], up)
    word = "selected" if seen.selected else "best"
    caption = f"The mean {words(seen.metric)} over {across} and {up}; the {word} cell is framed."
    yield Finding("heat", heat((across, up), seen.metric, cells, framed), caption)


def _parallel(seen: Overview) -> Iterator[Finding]:
    from dlrun.analysis.figures.parallel import parallel

    rows = []
    for group in seen.ranked:
        values = {key: value(group.results[0], key) for key in seen.swept}
        rows.append({**values, seen.metric: group.spread.mean})
    drawn = parallel(seen.swept, rows, seen.metric, higher_is_better=seen.what.higher_is_better)
    caption = (
        f"Every group as a line through its values and its mean {seen.metric}; the darker the better, the best black."
    )
    yield Finding("parallel", drawn, caption)


def _curves(seen: Overview) -> Iterator[Finding]:
    groups = [group for group in seen.groups if finished(group.results)][:CURVED]
    found = [(group, [result.curves() for result in finished(group.results)]) for group in groups]
    names = [name for name in _panels(seen) if any(_changes(run, name) for _, runs in found for run in runs)]
    if not names:
        return
    title, labels = _labels(seen, groups)
    drawn = bands([Bundle(label, runs) for label, (_, runs) in zip(labels, found, strict=True)], names, title=title)
    several = any(len(runs) > 1 for _, runs in found)
    what = "the median over the seeds with a band from the lowest to the highest" if several else "a line a run"
    rest = f" The best {LEGIBLE} groups have colours." if len(groups) > LEGIBLE else ""
    yield Finding("learning-curves", drawn, f"Learning curves: {what}.{rest}")


def _panels(seen: Overview) -> list[str]:
    name = seen.metric.partition("/")[2]
    logged = list(dict.fromkeys(["train/loss", "val/loss", f"val/{name}"]))
    # of squared error the loss is often the metric itself
    if name != "loss" and all(_same(result, "val/loss", f"val/{name}") for result in seen.finished):
        logged.remove(f"val/{name}")
    return logged


def _same(result: Result, one: str, other: str) -> bool:
    metrics = result.metrics
    return one in metrics and other in metrics and math.isclose(metrics[one], metrics[other], rel_tol=1e-9)


def _changes(curves: Curves, name: str) -> bool:
    return len(curves.get(name, ())) > 1


def _labels(seen: Overview, groups: Sequence[Group]) -> tuple[str, list[str]]:
    """Return a title for the legend and the groups' labels: of one swept key the values alone."""
    if len(seen.swept) != 1:
        return "", [group.shown(seen.swept) for group in groups]
    key = seen.swept[0]
    return key, [str(value(group.results[0], key)) for group in groups]


def _file(key: str) -> str:
    return "".join(sign if sign.isalnum() or sign in "._-" else "-" for sign in key)
