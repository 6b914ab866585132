"""Double descent over epochs: the error on new samples falls, rises as wrong labels are learnt, and falls again.

Sources: P. Nakkiran et al., Deep double descent (ICLR 2020), section 5. R. Heckel and F. Yilmaz, Early stopping in deep
networks: double descent and how to eliminate it (ICLR 2021).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dlrun.analysis.figures.scale import plain_ticks
from dlrun.analysis.figures.style import BLACK, figure, style_context
from dlrun.analysis.intervals import confidence_interval
from dlrun.storage.results import Result
from dlrun.storage.summary import split_sizes
from dlrun.studies.seed_bands import draw_tables
from dlrun.studies.study import CaptionedFigure, Claim, judge
from dlrun.studies.table import MetricTable, common_seeds, means, medians
from dlrun.studies.two_descents import falls, falls_again, falls_less, rises, shape

__all__ = ["DoubleDescentEpochs"]

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNIT = "epoch "


@dataclass(frozen=True)
class DoubleDescentEpochs:
    """The validation `metric` of the run with the largest `key` has two descents over the epochs.

    Points of a curve are averaged in bins of equal width on a logarithmic axis, `bins` to a doubling. Runs with an
    average of the weights (`trainer.ema`) are compared with those without.
    """

    key: str = "model.width"
    metric: str = "error"
    bins: int = 2

    def claims(self, results: Sequence[Result]) -> list[Claim]:
        plain = self._curves(results, f"val/{self.metric}", averaged=False)
        averaged = self._curves(results, f"val/{self.metric}", averaged=True)
        training = self._curves(results, "train/loss", averaged=False)
        widest: Any = max(plain, default=None)
        error = plain.get(widest, {})
        narrowest = plain[min(plain)] if len(plain) > 1 else {}
        narrow = f"There the narrowest model's {self.metric} falls by less."
        average = f"There the {self.metric} falls by less with weights averaged over the last steps."
        return [
            falls(error, f"The widest model's {self.metric} on validation falls at first.", unit=UNIT),
            rises(error, "It rises behind its minimum.", unit=UNIT),
            learns_by_heart(error, training.get(widest, {}), _entropy(results)),
            falls_again(error, "It falls again behind the peak.", unit=UNIT),
            falls_less(narrowest, error, narrow, name="the narrowest", unit=UNIT),
            falls_less(averaged.get(widest, {}), error, average, name="averaged weights", unit=UNIT),
        ]

    def figures(self, results: Sequence[Result]) -> Iterator[CaptionedFigure]:
        word = self.key.rpartition(".")[2]
        plain, averaged = (self._curves(results, f"val/{self.metric}", averaged=each) for each in (False, True))
        errors = {f"{word} {value}": table for value, table in plain.items()}
        if plain and (table := averaged.get(max(plain))):
            errors[f"{word} {max(plain)}, averaged weights"] = table
        training = self._curves(results, "train/loss", averaged=False)
        if errors and training:
            losses = {f"{word} {value}": table for value, table in training.items()}
            caption = (
                f"The {self.metric} on validation and the training loss against epochs, by {word}: median and range "
                "over the seeds. Dotted: the entropy of a label, the right one being known. Only who has learnt wrong "
                "labels by heart has less."
            )
            drawn = draw(errors, losses, metric=self.metric, entropy=_entropy(results))
            yield CaptionedFigure("double_descent_epochs", drawn, caption)

    def _curves(self, results: Sequence[Result], name: str, *, averaged: bool) -> dict[Any, MetricTable]:
        """The binned curve of each value of the key, by epoch and seed."""
        found: dict[Any, MetricTable] = {}
        for result in results:
            points = result.curves().get(name, [])
            if (result.value("trainer.ema") is not None) == averaged and points:
                table = found.setdefault(result.value(self.key), {})
                for epoch, value in in_bins(points, per_epoch=_per_epoch(result), bins=self.bins).items():
                    table.setdefault(epoch, {})[result.job.replicate] = value
        return dict(sorted(found.items(), key=lambda item: item[0]))


def in_bins(points: Sequence[tuple[int, float]], *, per_epoch: float, bins: int) -> dict[float, float]:
    """The mean value in each bin of epochs, by the mean epoch in it.

    >>> in_bins([(10, 0.5), (20, 0.4), (30, 0.2)], per_epoch=10, bins=1)
    {1.0: 0.5, 2.5: 0.3}
    """
    found: dict[int, list[tuple[float, float]]] = {}
    for step, value in points:
        found.setdefault(math.floor(bins * math.log2(step / per_epoch) + 1e-9), []).append((step / per_epoch, value))
    middles = {b: np.mean(members, axis=0).tolist() for b, members in sorted(found.items())}
    return {float(f"{epoch:.3g}"): round(value, 12) for epoch, value in middles.values()}


def learns_by_heart(error: MetricTable, training: MetricTable, entropy: float | None) -> Claim:
    """Held if the training loss passes half the `entropy` of the labels between minimum and peak of the error.

    Who knows the right labels, and not which are wrong, has a loss of the entropy at least.
    """
    text = "From minimum to peak, the wrong labels are learnt by heart."
    shared = [place for place in error if place in training]
    seeds = common_seeds({(i, p): table[p] for p in shared for i, table in enumerate((error, training))})
    found = shape(means({place: error[place] for place in shared}, seeds)) if len(seeds) > 1 else None
    if entropy is None or found is None:
        return judge(text, None, "It takes wrong labels, and the training loss at the same epochs on two seeds.")
    values = [np.array([training[place][seed] for seed in seeds]) / entropy for place in (found.before, found.peak)]
    (left, right), (low, high) = (confidence_interval(each) for each in values)
    evidence = (
        f"Of the labels' entropy, {entropy:.3g} nats, the training loss is {values[0].mean():.0%} at epoch "
        f"{found.before} (95 % interval {left:.0%} to {right:.0%}) and {values[1].mean():.0%} at epoch {found.peak} "
        f"({low:.0%} to {high:.0%})."
    )
    if left > 0.5 > high:
        return judge(text, True, evidence)
    return judge(text, False if right <= 0.5 or low >= 0.5 else None, evidence)


def draw(
    errors: dict[str, MetricTable], losses: dict[str, MetricTable], *, metric: str, entropy: float | None
) -> Figure:
    """Draw the errors on validation and, beside them, the training losses."""
    with style_context():
        fig = figure(14.5, 5.2)
        left, right = fig.add_subplot(1, 2, 1), fig.add_subplot(1, 2, 2)
        draw_tables(left, errors)
        draw_tables(right, losses)
        if entropy is not None:
            right.axhline(entropy, color=BLACK, linestyle=":", linewidth=1.6, label="entropy of a label")
            right.legend(*([each[-1]] for each in right.get_legend_handles_labels()))
        left.set(ylabel=f"{metric} on validation", ylim=(0, _ceiling(errors)))
        right.set(ylabel="training loss", ylim=(0, None))
        epochs = [epoch for table in errors.values() for epoch in table]
        for axes in (left, right):
            axes.set(xscale="log", xlabel="epoch")
            plain_ticks(axes.xaxis, epochs)
        fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(errors))
    return fig


def _ceiling(errors: Mapping[str, MetricTable]) -> float | None:
    # the first fall is the largest, and would leave the others flat
    curves = [[*medians(table).values()] for table in errors.values()]
    behind = [value for curve in curves for value in curve[int(np.argmin(curve)) :]]
    return 1.3 * max(behind) if all(map(math.isfinite, behind)) and any(behind) else None


def _per_epoch(result: Result) -> float:
    """The steps of an epoch; 1 where they are not known."""
    samples = split_sizes(result.summary.data).get("train", 0)
    size = result.value("trainer.batch_size") or samples
    whole = result.value("trainer.drop_last")
    return max(1, samples // size if whole else -(-samples // size)) if size else 1


def _entropy(results: Sequence[Result]) -> float | None:
    """Of a label, the right one being known, in nats; None without wrong labels, or if runs differ in them."""
    found = {(result.value("dataset.label_noise"), result.summary.spec.get("classes")) for result in results}
    share, classes = found.pop() if len(found) == 1 else (None, None)
    if not share or not classes or share >= 1:
        return None
    return float(-(1 - share) * math.log(1 - share) - share * math.log(share / (classes - 1)))
