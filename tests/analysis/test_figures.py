"""Figures show what they are given."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dlrun.analysis.figures.classes import confusion, confusion_counts, pixels, worst_mistakes
from dlrun.analysis.figures.curves import learning_curves, schedule
from dlrun.analysis.figures.functions import fit_1d, plane, predicted
from dlrun.analysis.figures.style import save
from dlrun.analysis.figures.text import loss_by_position, position_groups

CURVES = {
    "train/loss": [(1, 2.0), (2, 1.0), (3, 0.5), (4, float("nan"))],
    "val/loss": [(2, 1.5), (4, 1.2)],
    "val/error": [(2, 0.5), (4, 0.25)],
    "lr": [(1, 0.1), (2, 0.05)],
}


def is_picture(path: Path) -> bool:
    from PIL import Image

    with Image.open(path) as image:
        return len(set(image.convert("L").resize((200, 200)).tobytes())) > 2  # more than an empty frame


def test_learning_curves_show_their_points() -> None:
    loss, metric = learning_curves(CURVES, best_step=4).axes
    lines = {line.get_label(): line for line in loss.get_lines()}
    assert lines["training"].get_xdata().tolist() == [1, 2, 3, 4]
    assert lines["validation"].get_ydata().tolist() == [1.5, 1.2]
    assert "selected (step 4)" in lines
    assert (loss.get_ylabel(), metric.get_ylabel(), metric.get_xlabel()) == ("loss", "error", "optimizer step")
    assert lines["training"].get_linestyle() != lines["validation"].get_linestyle()


def test_the_metric_that_selects_stands_beside_the_loss() -> None:
    curves = CURVES | {"val/iou": [(2, 0.3), (4, 0.6)]}
    for monitor, shown in (("val/iou", "iou"), ("val/loss", "error"), ("val/error", "error"), (None, "error")):
        loss, metric = learning_curves(curves, monitor=monitor).axes
        assert (loss.get_ylabel(), metric.get_ylabel()) == ("loss", shown)


def test_a_metric_that_is_the_loss_gets_no_panel() -> None:
    assert len(learning_curves({"val/loss": [(1, 2.0)], "val/mse": [(1, 2.0)]}).axes) == 1
    assert len(learning_curves({"train/loss": [(1, 2.0), (2, 1e-9)]}).axes) == 1


def test_confusion_counts() -> None:
    targets, predictions = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 1, 2, 0])
    assert confusion_counts(targets, predictions).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    axes = confusion(targets, predictions, ["cat", "dog", "owl"]).axes[0]
    assert axes.get_title() == "2 of 5 wrong (40.00%)"
    assert [t.get_text() for t in axes.get_yticklabels()] == ["cat", "dog", "owl"]
    cells = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts}
    assert cells == {(0, 0): "1", (0, 1): "1", (1, 1): "1", (2, 0): "1", (2, 2): "1"}


def test_the_worst_mistake_comes_first() -> None:
    targets = torch.tensor([0, 1, 2, 0])
    probabilities = torch.tensor([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.3, 0.4, 0.3]])
    drawn = worst_mistakes(torch.rand(4, 1, 3, 3), targets, probabilities)
    assert drawn is not None
    assert [t.get_text() for t in drawn.axes[0].texts] == ["2 → 1  90%", "0 → 1  40%", "1 → 0  60%"]


def test_no_picture_of_what_is_no_image_or_no_mistake() -> None:
    targets, right = torch.tensor([0, 1]), torch.eye(2)
    assert worst_mistakes(torch.rand(2, 5), targets, 1 - right) is None
    assert worst_mistakes(torch.rand(2, 1, 3, 3), targets, right) is None


def test_pixels_undo_a_normalisation() -> None:
    x = torch.rand(5, 3, 4, 4)
    x[0, :, 0, 0], x[1, :, 0, 0] = 0, 1  # each channel reaches black and white
    shown = pixels((x - 0.3) / torch.tensor([0.1, 0.2, 0.3])[:, None, None], torch.tensor([2, 4]))
    torch.testing.assert_close(shown, x[[2, 4]].movedim(1, -1))


def test_a_fit_that_leaves_the_frame_is_cut() -> None:
    x = torch.linspace(0, 1, 5)
    axes = fit_1d(x, x, x, 1000 * x, truth=x).axes[0]
    assert axes.get_ylim()[1] < 2
    assert {line.get_label() for line in axes.get_lines()} == {"f*", "fit"}


def test_plane_shows_the_regions_the_right_way_up() -> None:
    x = torch.tensor([[-1.0, -2.0], [1.0, 2.0]])
    drawn = plane(x, torch.tensor([0, 1]), lambda p: torch.stack([1 - (p[:, 1] > 0).float(), (p[:, 1] > 0).float()], 1))
    image = drawn.axes[0].get_images()[0]
    shown = torch.as_tensor(image.get_array())
    assert image.origin == "lower"
    assert shown[:100].max() == 0
    assert shown[-100:].min() == 1
    plane(x, torch.tensor([0, 2]), lambda p: torch.ones(len(p), 3))
    plane(x, torch.tensor([0, 1]), lambda p: torch.eye(2)[torch.zeros(len(p), dtype=torch.int64)])  # one class only


def test_the_loss_by_position_is_the_mean_over_windows() -> None:
    axes = loss_by_position(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 7).axes[0]
    assert axes.lines[0].get_ydata() == pytest.approx([math.log(7)] * 2)
    assert axes.lines[1].get_ydata() == pytest.approx([2.0, 3.0])


def test_positions_are_grouped_without_a_gap() -> None:
    for n in (1, 4, 9, 64, 1024):
        found = position_groups(n)
        assert [begin for begin, _ in found] == [0, *(end for _, end in found[:-1])]
        assert found[-1][1] == n


def test_a_figure_is_saved_whole(tmp_path: Path) -> None:
    path = save(schedule(CURVES["lr"]), tmp_path / "figures" / "schedule.png")
    assert is_picture(path)
    assert [p.name for p in path.parent.iterdir()] == ["schedule.png"]


def test_predicted_values_lie_beside_the_true_ones() -> None:
    true = torch.arange(12.0).view(6, 2)
    found = true + torch.tensor([1.0, 0.0])
    found[0, 0] = torch.nan
    axes = predicted(true, found, ["a", "b"]).axes
    assert [each.get_xlabel() for each in axes] == ["true a", "true b"]
    # 1 - Σ(y - ŷ)² / Σ(y - ȳ)²: of 2, 4, …, 10 it is 1 - 5/40
    assert [each.get_title() for each in axes] == ["R² 0.875", "R² 1.000"]
    assert axes[0].collections[0].get_offsets().tolist() == [[2.0 * i, 2.0 * i + 1] for i in range(1, 6)]


def test_importing_costs_no_matplotlib_and_drawing_no_pyplot() -> None:
    program = (
        "import sys, dlrun.analysis.figures\nassert 'matplotlib' not in sys.modules\n"
        "from dlrun.analysis.figures.curves import schedule\nschedule([(1, 0.1)])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
