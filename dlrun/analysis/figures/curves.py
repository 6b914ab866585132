"""Learning curves and the learning rate of one run, over the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dlrun.analysis.figures.scale import scale_y
from dlrun.analysis.figures.style import BLACK, BLUE, ORANGE, figure, style_context

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Sequence[tuple[int, float]]

# the first of these that was logged stands beside the loss, where the loss itself selects
_METRICS = ("error", "perplexity", "accuracy", "recall_at_1", "mse")


def learning_curves(curves: Mapping[str, Curve], *, monitor: str | None = None, best_step: int | None = None) -> Figure:
    """Draw the losses and, beside them, the metric that selects the weights, else the task's.

    `curves` are points (step, value) by name (`train/loss`, `val/error`, …), `monitor` is one of these names;
    `best_step`, the step of the selected weights, is marked.
    """
    names = ["loss", *_metric(curves, monitor)]
    with style_context():
        fig = figure(6.2 * len(names), 4.4)
        for i, name in enumerate(names):
            axes = fig.add_subplot(1, len(names), i + 1)
            _panel(axes, name, curves, best_step)
    return fig


def schedule(points: Curve) -> Figure:
    with style_context():
        fig = figure(6.2, 3.2)
        axes = fig.add_subplot()
        axes.plot(*zip(*points, strict=True), color=BLUE)
        axes.set(xlabel="optimizer step", ylabel="learning rate", ylim=(0, None))
        axes.margins(x=0.01)
    return fig


def varies(points: Curve) -> bool:
    """True if a curve has more than one value."""
    return len({value for _, value in points}) > 1


def _metric(curves: Mapping[str, Curve], monitor: str | None) -> list[str]:
    """The metric beside the loss, if it is another quantity."""
    selecting = (monitor or "val/loss").removeprefix("val/")
    for name in (*([] if selecting == "loss" else [selecting]), *_METRICS):
        found = curves.get(f"val/{name}") or curves.get(f"train/{name}")
        if found and list(found) not in (list(curves.get("val/loss", ())), list(curves.get("train/loss", ()))):
            return [name]
    return []


def _panel(axes: Axes, name: str, curves: Mapping[str, Curve], best_step: int | None) -> None:
    shown = {}
    for split, word, colour, style in (
        ("train", "training", BLUE, {"linestyle": "-", "linewidth": 1.4}),
        ("val", "validation", ORANGE, {"linestyle": "--"}),
    ):
        points = curves.get(f"{split}/{name}", ())
        if points:
            few = len(points) <= 40  # markers of more would merge
            axes.plot(
                *zip(*points, strict=True), color=colour, label=word, marker="o" if few else None, ms=4.5, **style
            )
            shown[word] = points
    scale_y(axes, [value for points in shown.values() for _, value in points], name)
    if best_step is not None and "validation" in shown:
        axes.axvline(best_step, color=BLACK, linestyle=":", linewidth=1.6, label=f"selected (step {best_step:,})")
    axes.set(xlabel="optimizer step", ylabel=name.replace("_", " "))
    axes.margins(x=0.02)
    if shown:
        axes.legend()
