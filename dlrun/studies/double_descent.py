"""Double descent: the test error falls, rises near the interpolation threshold, falls again (Belkin et al. 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlrun.analysis.figures.scale import plain_ticks
from dlrun.analysis.figures.style import BLACK, figure, style_context
from dlrun.storage.results import Result
from dlrun.studies.seed_bands import draw_tables
from dlrun.studies.study import CaptionedFigure, Claim
from dlrun.studies.table import MetricTable, argmin, means, tabulate
from dlrun.studies.two_descents import best_behind, falls, falls_again, rises

__all__ = ["DoubleDescent"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class DoubleDescent:
    """The test `metric` over the capacity `key` has two descents.

    It falls, peaks, falls again, and ends below the first minimum.
    """

    key: str = "model.width"
    metric: str = "error"

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        test = tabulate(results, self.key, f"test/{self.metric}")
        return [
            falls(test, f"The test {self.metric} falls at first."),
            rises(test, f"The test {self.metric} rises towards the threshold."),
            falls_again(test, f"The test {self.metric} falls again behind it."),
            best_behind(test, f"The best wide model has a smaller test {self.metric} than the best narrow one."),
        ]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        tables = {word: tabulate(results, self.key, f"{split}/{self.metric}") for word, split in _WORDS.items()}
        tables = {word: table for word, table in tables.items() if table}
        if "test" in tables:
            caption = f"Training and test {self.metric} against {self.key}: median and range over the seeds."
            yield CaptionedFigure("double_descent", draw(tables, self.key, self.metric), caption)


_WORDS = {"test": "test", "training": "train"}


def draw(tables: dict[str, MetricTable], key: str, metric: str) -> Figure:
    """Draw the errors over the capacity."""
    with style_context():
        fig = figure(7.2, 4.6)
        axes = fig.add_subplot()
        draw_tables(axes, tables)
        # near the interpolation threshold training error reaches its least
        train = means(tables.get("training", {}))
        if train:
            threshold = argmin(train)
            axes.axvline(threshold, color=BLACK, linestyle=":", linewidth=1.6, label=f"least training {metric}")
        axes.set(xscale="log", xlabel=key.rpartition(".")[2], ylabel=metric)
        plain_ticks(axes.xaxis, [value for table in tables.values() for value in table])
        axes.legend()
    return fig
