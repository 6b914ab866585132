"""The figures of a sweep show what they were given: medians, ranges, scales, the best."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm

from dlrun.analysis.figures.against import against, heat
from dlrun.analysis.figures.bands import LEGIBLE, GroupCurves, align, bands
from dlrun.analysis.figures.pairs import pairs
from dlrun.analysis.figures.parallel import parallel
from dlrun.analysis.figures.ranking import MAX_GROUPS, Row, ranking
from dlrun.analysis.figures.scale import plain_ticks
from dlrun.analysis.figures.style import figure, save
from dlrun.analysis.statistics import spread


def test_curves_of_the_same_steps_are_their_median_and_range() -> None:
    values = np.random.default_rng(0).random((5, 7))
    steps = [10 * i for i in range(7)]
    found = align([list(zip(steps, row, strict=True)) for row in values])
    assert found[0].tolist() == steps
    np.testing.assert_allclose(found[1:], [np.median(values, 0), values.min(0), values.max(0)])


def test_curves_of_other_steps_are_straight_between_their_points_and_nothing_outside() -> None:
    steps, middle, low, high = align([[(0, 0.0), (10, 1.0)], [(0, 0.0), (5, 1.0)], [(0, 0.0), (5, 1.0), (20, 9.0)]])
    assert steps.tolist() == [0, 5, 10]  # only one of three reaches 20
    assert (middle.tolist(), low.tolist()) == ([0.0, 1.0, pytest.approx(1.0 + 4 / 3)], [0.0, 0.5, 1.0])
    assert high[1] == 1.0


def test_what_is_not_finite_is_no_point_of_a_curve() -> None:
    steps, middle, *_ = align([[(1, 2.0), (2, math.nan), (3, 4.0)]])
    assert (steps.tolist(), middle.tolist()) == ([1, 2, 3], [2.0, 3.0, 4.0])
    assert all(len(part) == 0 for part in align([[(1, math.inf)]]))


def test_more_groups_than_can_be_told_apart_are_grey() -> None:
    bundle = [GroupCurves(f"g{i}", [{"val/loss": [(1, 2.0 + i), (2, 1.0 + i)]}]) for i in range(LEGIBLE + 3)]
    drawn = bands(bundle, ["val/loss"], title="lr")
    lines = drawn.axes[0].get_lines()
    assert len(lines) == LEGIBLE + 3
    looks = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}
    assert len(looks) == LEGIBLE + 1
    assert [text.get_text() for text in drawn.legends[0].get_texts()][-1] == "the other 3"
    markers = [line.get_marker() for line in lines[3:]]
    assert len({*markers}) == LEGIBLE  # without colour too


def test_training_and_validation_loss_share_their_scale() -> None:
    run = {"train/loss": [(1, 1.0), (2, 0.001)], "val/loss": [(1, 1.0), (2, 0.5)], "val/error": [(1, 0.5), (2, 0.4)]}
    drawn = bands([GroupCurves("g", [run])], ["train/loss", "val/loss", "val/error"])
    assert [axes.get_yscale() for axes in drawn.axes] == ["log", "log", "linear"]
    assert [axes.get_ylabel() for axes in drawn.axes] == ["training loss", "validation loss", "validation error"]


def labels(axis: Axis) -> list[str]:
    """The labels that an axis shows within its limits."""
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [tick.label1.get_text() for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_text()]


def test_each_panel_of_a_shared_scale_has_ticks_of_its_own() -> None:
    run = {"train/loss": [(1, 2.0), (2, 0.005)], "val/loss": [(1, 1.9), (2, 0.55)]}
    drawn = bands([GroupCurves("g", [run])], ["train/loss", "val/loss"])
    drawn.draw_without_rendering()
    assert [axes.get_yscale() for axes in drawn.axes] == ["log", "log"]
    assert labels(drawn.axes[0].yaxis) == ["0.01", "0.1", "1"]
    assert len(labels(drawn.axes[1].yaxis)) >= 3


def test_logarithmic_ticks_are_plain_and_several_at_any_range() -> None:
    for low, high in ((0.07, 0.09), (0.067, 0.49), (0.03, 0.27), (2.1, 19.0), (0.0021, 3.0), (1e-5, 1.0)):
        axes = figure(6, 4).add_subplot()
        axes.plot([1, 2], [low, high])
        axes.set_yscale("log")
        plain_ticks(axes.yaxis, [low, high])
        axes.figure.draw_without_rendering()
        shown = labels(axes.yaxis)
        assert len(shown) >= 2, (low, high)
        assert not any("$" in label for label in shown)


def test_ticks_are_dense_where_values_differ_by_a_small_factor() -> None:
    axes = figure(6, 4).add_subplot()
    axes.plot([1, 2], [0.031, 0.15])
    axes.set_yscale("log")
    plain_ticks(axes.yaxis, [0.031, 0.15])
    axes.figure.draw_without_rendering()
    assert labels(axes.yaxis) == ["0.03", "0.05", "0.07", "0.1", "0.15"]


def test_the_panels_keep_their_height_beside_a_long_legend() -> None:
    heights = []
    for n, label in ((2, "schedule=constant, lr=0.00"), (LEGIBLE, "schedule=constant, lr=0.00"), (2 * LEGIBLE, "")):
        runs = [GroupCurves(f"{label}{i}", [{"val/loss": [(1, 2.0), (2, 1.0)]}]) for i in range(n)]
        drawn = bands(runs, ["val/loss"])
        drawn.draw_without_rendering()
        heights.append(drawn.axes[0].get_window_extent().height)
        legend = drawn.legends[0].get_window_extent()
        assert legend.x0 >= 0
        assert legend.x1 <= drawn.bbox.x1
    assert heights == pytest.approx([heights[0]] * 3, rel=0.05)


@pytest.mark.parametrize(
    ("values", "scale"),
    [([0.001, 0.01, 0.1], "log"), ([1, 2, 3], "linear"), ([0.0, 1e-4, 1e-2], "symlog"), (["sgd", "adam"], "linear")],
)
def test_the_axis_suits_the_values(values: list[object], scale: str) -> None:
    points = [(x, 0.1 * i) for i, x in enumerate(values) for _ in range(3)]
    axes = against("optimizer.lr", "error", {"val": points}, {"val": points}).axes[0]
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == (scale, "optimizer.lr", "error")
    if scale == "linear":
        assert [t.get_text() for t in axes.get_xticklabels()] == [str(value) for value in values]


def test_the_splits_differ_in_marker_and_line() -> None:
    points = {split: [(1, 0.1), (2, 0.2)] for split in ("train", "val", "test")}
    lines = against("k", "mse", points, points).axes[0].get_lines()
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == 3
    assert [line.get_label() for line in lines] == ["training", "validation", "test"]


def test_the_line_is_the_median_of_what_it_was_given() -> None:
    points = [(1, 0.1), (1, 0.3), (1, 0.2), (2, 0.5), (2, math.nan)]
    line = against("k", "mse", {"val": points}, {"val": points}).axes[0].get_lines()[0]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2], [0.2, 0.5])


def test_a_heat_map_has_each_cell_in_its_place() -> None:
    cells = {(x, y): x + 10 * y for x in (0.1, 0.01) for y in (3, 1)}
    del cells[0.1, 3]
    drawn = heat(("lr", "depth"), "val/loss", cells, (0.01, 1))
    axes = drawn.axes[0]
    shown = axes.get_images()[0].get_array()
    assert shown is not None
    assert np.ma.filled(shown, -1).tolist() == [[10.01, 10.1], [30.01, -1]]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0.01", "0.1"]
    assert axes.patches[0].get_xy() == (-0.5, -0.5)


def test_one_cell_far_off_does_not_take_all_shades() -> None:
    cells = {(0, 0): 0.49, (1, 0): 0.109, (0, 1): 0.0765, (1, 1): 0.08}
    drawn = heat(("a", "b"), "val/loss", cells, (0, 1))
    drawn.draw_without_rendering()
    shades = drawn.axes[0].get_images()[0]
    assert isinstance(shades.norm, LogNorm)
    assert [text.get_text() for text in drawn.axes[0].texts] == ["0.490", "0.109", "0.0765", "0.0800"]
    assert len(labels(drawn.axes[1].yaxis)) >= 3
    near = heat(("a", "b"), "val/loss", {**cells, (0, 0): 0.2}, (0, 1))
    assert not isinstance(near.axes[0].get_images()[0].norm, LogNorm)


def test_parallel_coordinates_draw_the_best_on_top() -> None:
    rows = [
        {"lr": 0.1, "width": 16, "rule": "sgd", "val/error": 0.3},
        {"lr": 0.01, "width": 64, "rule": "adam", "val/error": 0.1},
    ]
    for higher, best in ((False, 1), (True, 0)):
        lines = parallel(["lr", "width", "rule"], rows, "val/error", higher_is_better=higher).axes[0].get_lines()
        labelled = [line for line in lines if line.get_label() == "the best"]
        assert len(labelled) == 1
        assert labelled[0].get_ydata()[1] == best  # the wider is the higher on its axis
    parallel(["lr"], [rows[0]], "val/error")  # one row has no range


def test_a_ranking_shows_runs_mean_and_interval() -> None:
    values = [0.18, 0.2, 0.22]
    rows = [Row(label, own, spread(own), selected=label == "a") for label, own in (("a", values), ("b", [0.5]))]
    drawn = ranking([*rows, Row("c", [0.1, 0.9], spread([0.1, 0.9]))], "val/error")
    axes = drawn.axes[0]
    bar, mean, _ = axes.get_lines()  # two seeds so far apart have a mean without a bar
    found = spread(values)
    assert list(bar.get_xdata()) == [found.low, found.high]
    assert list(mean.get_xdata()) == [pytest.approx(0.2)]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["★ a", "b", "c"]
    assert len(ranking([Row(str(i), [1.0], spread([1.0])) for i in range(99)], "x").axes[0].get_yticks()) == MAX_GROUPS


def test_pairs_join_the_runs_of_a_seed() -> None:
    axes = pairs([("A", {0: 1.0, 1: 2.0}), ("B", {1: 3.0, 0: 2.0, 5: 7.0})], "val/loss").axes[0]
    joined = [list(line.get_ydata()) for line in axes.get_lines()[:3]]
    assert joined == [[1.0, 2.0], [2.0, 3.0], [7.0]]


def test_a_figure_is_the_same_file_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        drawn = figure(3, 2)
        drawn.add_subplot().plot([1, 2], label="x")
        assert save(drawn, tmp_path / f"{name}.svg", tmp_path / f"{name}.png") == tmp_path / f"{name}.svg"
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.02, 0.04, 0.08, 0.16], "log"),
        ([0.001, 0.003, 0.01, 0.03], "log"),
        ([0.1, 0.2, 0.3, 0.4], "linear"),
        ([1, 2, 4, 8], "linear"),
    ],
)
def test_rates_that_grow_by_a_factor_stand_on_a_logarithmic_axis(values: list[float], scale: str) -> None:
    drawn = against("optimizer.lr", "loss", {"val": [(value, 1.0) for value in values]}, {})
    assert drawn.axes[0].get_xscale() == scale
