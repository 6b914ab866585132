"""Weight decay: a penalty on the squared weights degrades training and narrows the gap to unseen data (book 3.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlrun.analysis.figures.style import figure, styled
from dlrun.analysis.statistics import paired
from dlrun.storage.results import Result
from dlrun.studies.bands import bands
from dlrun.studies.study import Claim, Finding, judged
from dlrun.studies.table import Table, by_value, common, means, rank_correlation

__all__ = ["WeightDecay"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEY = "optimizer.weight_decay"
ORDERED = 0.9
"""The rank correlation from which on the means are said to follow the penalty."""


@dataclass(frozen=True)
class WeightDecay:
    """The gap between test and training `metric` against the penalty."""

    metric: str = "loss"

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        """Return whether the gap shrinks, and training degrades, as the penalty grows."""
        return [
            follows(self._gaps(results), "The gap between test and training shrinks as the penalty grows.", falls=True),
            follows(
                by_value(results, KEY, f"train/{self.metric}"),
                "The penalty degrades training: its loss grows with it.",
                falls=False,
            ),
        ]

    def figures(self, results: Sequence[Result]) -> Iterator[Finding]:
        """Yield train and test, and their gap, against the penalty."""
        train, test = (by_value(results, KEY, f"{split}/{self.metric}") for split in ("train", "test"))
        if test:
            caption = f"Training and test {self.metric}, and the gap between them: median and range over the seeds."
            yield Finding("gap", drawn(train, test, self._gaps(results), self.metric), caption)

    def _gaps(self, results: Sequence[Result]) -> Table:
        def gap(result: Result) -> float | None:
            train, test = (result.metrics.get(f"{split}/{self.metric}") for split in ("train", "test"))
            return None if train is None or test is None else test - train

        return by_value(results, KEY, gap)


def follows(table: Table, text: str, *, falls: bool) -> Claim:
    """Return whether a quantity falls (or grows) with the penalty.

    Its means have to follow the penalty by rank, and it has to differ between the least and the
    largest penalty by more than the seeds do.
    """
    seeds = common(table)
    if len(table) < 3 or len(seeds) < 2:
        return judged(text, None, "It takes three penalties and two common seeds.")
    found, ends = means(table, seeds), [*table]
    correlation = rank_correlation([float(penalty) for penalty in found], [*found.values()])
    ends_differ = paired(*({seed: table[end][seed] for seed in seeds} for end in (ends[0], ends[-1])))
    sign = -1 if falls else 1
    told = (
        f"{found[ends[0]]:.4g} at penalty {ends[0]:g}, {found[ends[-1]]:.4g} at {ends[-1]:g}: the difference is "
        f"{ends_differ.mean:+.3g}, its 95 % interval {ends_differ.low:+.3g} to {ends_differ.high:+.3g} "
        f"({len(seeds)} seeds); rank correlation {correlation:+.2f} over {len(found)} penalties."
    )
    return judged(
        text, bool(ends_differ.told_apart) and sign * ends_differ.mean > 0 and sign * correlation >= ORDERED, told
    )


def drawn(train: Table, test: Table, gaps: Table, metric: str) -> Figure:
    """Draw both sides, and beside them the gap; no penalty at all stands left of the least."""
    penalties = [float(value) for value in train]
    positive = [value for value in penalties if value > 0]
    places = {value: value or min(positive, default=1.0) / 10 for value in penalties}
    with styled():
        made = figure(12.4, 4.4)
        for i, (tables, name) in enumerate(
            (({"training": train, "test": test}, metric), ({"test - training": gaps}, f"gap in {metric}"))
        ):
            axes = made.add_subplot(1, 2, i + 1)
            bands(axes, tables, places=places)
            axes.set(xscale="log", xlabel="weight decay", ylabel=name, ylim=(0, None))
            ticks = [*places.values()]
            axes.set_xticks(ticks, [f"{value:g}" for value in penalties], minor=False, rotation=35)
            axes.minorticks_off()
            axes.legend()
    return made
