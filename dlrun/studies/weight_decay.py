"""Weight decay: penalising squared weights worsens training and narrows the gap to unseen data (book 3.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlrun.analysis.figures.style import figure, style_context
from dlrun.analysis.statistics import paired_difference
from dlrun.storage.results import Result
from dlrun.studies.seed_bands import draw_tables
from dlrun.studies.study import CaptionedFigure, Claim, judge
from dlrun.studies.table import MetricTable, common_seeds, means, rank_correlation, tabulate
from dlrun.terminal.format import counted

__all__ = ["WeightDecay"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEY = "optimizer.weight_decay"
MIN_CORRELATION = 0.9  # by rank, of the means with the penalty; 1 would let one swap among close penalties refute it


@dataclass(frozen=True)
class WeightDecay:
    """The gap between test and training `metric` over the penalty."""

    metric: str = "loss"

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        return [
            follows(self._gaps(results), "The gap between test and training shrinks as the penalty grows.", falls=True),
            follows(
                tabulate(results, KEY, f"train/{self.metric}"),
                "The penalty degrades training: its loss grows with it.",
                falls=False,
            ),
        ]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        train, test = (tabulate(results, KEY, f"{split}/{self.metric}") for split in ("train", "test"))
        if test:
            caption = f"Training and test {self.metric}, and the gap between them: median and range over the seeds."
            yield CaptionedFigure("gap", draw(train, test, self._gaps(results), self.metric), caption)

    def _gaps(self, results: Sequence[Result]) -> MetricTable:
        def gap(result: Result) -> float | None:
            train, test = (result.metrics.get(f"{split}/{self.metric}") for split in ("train", "test"))
            return None if train is None or test is None else test - train

        return tabulate(results, KEY, gap)


def follows(table: MetricTable, text: str, *, falls: bool) -> Claim:
    """Held if a quantity `falls` (or grows) with the penalty.

    Its means follow the penalty by rank, and its paired difference between the least and the largest penalty is
    significant and of that sign.
    """
    seeds = common_seeds(table)
    if len(table) < 3 or len(seeds) < 2:
        return judge(text, None, "It takes three penalties and two common seeds.")
    found, ends = means(table, seeds), [*table]
    correlation = rank_correlation([float(penalty) for penalty in found], [*found.values()])
    # paired by seed: the seeds differ more than neighbouring penalties do
    ends_differ = paired_difference(*({seed: table[end][seed] for seed in seeds} for end in (ends[0], ends[-1])))
    sign = -1 if falls else 1
    interval = f"its 95 % interval {ends_differ.low:+.3g} to {ends_differ.high:+.3g}"
    if ends_differ.constant:
        interval = "the same on every seed"
    evidence = (
        f"{found[ends[0]]:.4g} at penalty {ends[0]:g}, {found[ends[-1]]:.4g} at {ends[-1]:g}: the difference is "
        f"{ends_differ.mean:+.3g}, {interval} ({counted(len(seeds), 'seed')}); "
        f"rank correlation {correlation:+.2f} over {len(found)} penalties."
    )
    return judge(
        text,
        bool(ends_differ.significant) and sign * ends_differ.mean > 0 and sign * correlation >= MIN_CORRELATION,
        evidence,
    )


def draw(train: MetricTable, test: MetricTable, gaps: MetricTable, metric: str) -> Figure:
    """Draw both sides and, beside them, the gap."""
    penalties = [float(value) for value in train]
    positive = [value for value in penalties if value > 0]
    # on a logarithmic axis, a penalty of zero stands a decade left of the least
    positions = {value: value or min(positive, default=1.0) / 10 for value in penalties}
    with style_context():
        fig = figure(12.4, 4.4)
        for i, (tables, name) in enumerate(
            (({"training": train, "test": test}, metric), ({"test - training": gaps}, f"gap in {metric}"))
        ):
            axes = fig.add_subplot(1, 2, i + 1)
            draw_tables(axes, tables, positions=positions)
            axes.set(xscale="log", xlabel="weight decay", ylabel=name, ylim=(0, None))
            ticks = [*positions.values()]
            axes.set_xticks(ticks, [f"{value:g}" for value in penalties], minor=False, rotation=35)
            axes.minorticks_off()
            axes.legend()
    return fig
