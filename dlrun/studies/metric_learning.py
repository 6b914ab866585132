"""Metric learning by triplets: is the nearest neighbour of one class more often than among the inputs? (book 3.1)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlrun.analysis.figures.style import BLACK, COLOURS, MARKERS, figure, style_context
from dlrun.analysis.statistics import Difference, paired_difference
from dlrun.storage.results import Result
from dlrun.studies.study import CaptionedFigure, Claim, judge
from dlrun.studies.table import MetricTable, common_seeds, means, tabulate
from dlrun.terminal.format import counted

__all__ = ["MetricLearning"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEY = "loss.mining"
RECALL, OF_INPUTS = "recall_at_1", "recall_at_1_of_inputs"
SAMPLES = {"val": "new samples of the trained classes", "test": "classes held out of training"}


@dataclass(frozen=True)
class MetricLearning:
    """Recall@1 by how triplets are mined, beside that of the inputs themselves."""

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        tables = {split: tabulate(results, KEY, f"{split}/{RECALL}") for split in SAMPLES}
        inputs = {split: tabulate(results, KEY, f"{split}/{OF_INPUTS}") for split in SAMPLES}
        return [
            *(above_inputs(tables[split], inputs[split], where) for split, where in SAMPLES.items()),
            mined_above_random(tables["val"]),
        ]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        panels = {
            where: (tabulate(results, KEY, f"{split}/{RECALL}"), tabulate(results, KEY, f"{split}/{OF_INPUTS}"))
            for split, where in SAMPLES.items()
        }
        drawn = {where: tables for where, tables in panels.items() if tables[0]}
        if drawn:
            caption = (
                "Recall@1 by the mining of triplets, a mark for each seed and a bar at the mean; dashed: the inputs."
            )
            yield CaptionedFigure("recall", draw(drawn), caption)


def above_inputs(table: MetricTable, inputs: MetricTable, where: str) -> Claim:
    """Held if every mining is above the inputs, paired by seed; not held if one is below.

    Each interval may have 95 % by itself, for all have to agree.
    """
    text = f"On {where}, an embedding has a higher recall@1 than the inputs themselves, by every mining."
    seeds = common_seeds(table)
    if not table or table.keys() != inputs.keys():
        return judge(text, None, "It takes the recall of the inputs: +metric=recall_at_1_of_inputs.")
    if len(seeds) < 2:
        return judge(text, None, "It takes two common seeds: 'seed=range(2)'.")
    steps = {mining: paired_difference(inputs[mining], table[mining]) for mining in table}
    level = means(inputs, seeds)
    evidence = f"The inputs have {next(iter(level.values())):.4f}; {_shown(table, steps, seeds)}."
    return judge(text, _verdict([*steps.values()]), evidence)


def mined_above_random(table: MetricTable) -> Claim:
    """Held if hard and semi-hard triplets are both above random ones, paired by seed; not held if one is below."""
    text = "Mined triplets, hard and semi-hard, give new samples a higher recall@1 than random ones."
    seeds = common_seeds(table)
    if {"random", "hard", "semi_hard"} - table.keys() or len(seeds) < 2:
        return judge(text, None, "It takes the three minings and two common seeds: 'seed=range(2)'.")
    steps = {mining: paired_difference(table["random"], table[mining]) for mining in ("hard", "semi_hard")}
    evidence = f"Random triplets have {means(table, seeds)['random']:.4f}; {_shown(table, steps, seeds)}."
    return judge(text, _verdict([*steps.values()]), evidence)


def _verdict(steps: Sequence[Difference]) -> bool | None:
    if all(step.significant and step.mean > 0 for step in steps):
        return True
    return False if any(step.significant and step.mean < 0 for step in steps) else None


def _shown(table: MetricTable, steps: dict[str, Difference], seeds: Sequence[int]) -> str:
    level = means(table, seeds)

    def interval(step: Difference) -> str:
        return "the same on every seed" if step.constant else f"{step.low:+.4f} to {step.high:+.4f}"

    each = (f"{name} {level[name]:.4f} ({step.mean:+.4f}, {interval(step)})" for name, step in steps.items())
    return f"{', '.join(each)}: differences with 95 % intervals over {counted(len(seeds), 'seed')}"


def draw(panels: dict[str, tuple[MetricTable, MetricTable]]) -> Figure:
    """Draw every seed's recall by mining, a panel a split, with that of the inputs as a line."""
    with style_context():
        fig = figure(5.2 * len(panels), 4.4)
        for axes, (where, (table, inputs)) in zip(
            fig.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for i, row in enumerate(table.values()):
                axes.scatter([i] * len(row), [*row.values()], s=36, color=COLOURS[i], marker=MARKERS[i], zorder=3)
                axes.plot([i - 0.3, i + 0.3], [sum(row.values()) / len(row)] * 2, color=BLACK, linewidth=1.6)
            if inputs:
                row = next(iter(inputs.values()))
                level = sum(row.values()) / len(row)
                axes.axhline(level, color=BLACK, linestyle="--", linewidth=1.4, label=f"the inputs: {level:.3f}")
                axes.legend()
            axes.set(ylabel="recall@1", xlim=(-0.6, len(table) - 0.4), title=where)
            axes.set_xticks(range(len(table)), [str(name).replace("_", "-") for name in table])
    return fig
