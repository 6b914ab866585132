"""The figures: what they show is what they were given, and a run gets those that suit it."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dlrun.analysis import figures
from dlrun.analysis.figures.classes import confusion, confusion_counts, pixels, worst_mistakes
from dlrun.analysis.figures.curves import learning_curves, schedule
from dlrun.analysis.figures.functions import fit_1d, plane
from dlrun.analysis.figures.style import save
from dlrun.analysis.figures.text import loss_by_position, position_groups
from dlrun.datasets.language.windows import Windows
from dlrun.engine.evaluation import Collected
from dlrun.losses.cross_entropy import cross_entropy
from dlrun.storage.journal import Journal
from dlrun.storage.rundir import RunDir
from dlrun.types import Batch, Data, Spec, Split

CURVES = {
    "train/loss": [(1, 2.0), (2, 1.0), (3, 0.5), (4, float("nan"))],
    "val/loss": [(2, 1.5), (4, 1.2)],
    "val/error": [(2, 0.5), (4, 0.25)],
    "lr": [(1, 0.1), (2, 0.05)],
}


class Points:
    """A split of given tensors."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def gather(self, index: Tensor) -> Batch:
        return Batch(self.x[index], self.y[index])

    def to(self, device: torch.device) -> Split:
        return self


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run that has logged a few points."""
    folder = RunDir(tmp_path)
    journal = Journal(folder.journal)
    for name, points in CURVES.items():
        for step, value in points:
            journal.metrics(step, 0.0, {name: value})
    journal.close()
    return folder


def data(spec: Spec, x: Tensor, y: Tensor) -> Data:
    truth = torch.sin if spec.task == "regression" else None
    return Data("points", spec, Points(x, y), None, None, "", truth=truth)


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


def test_a_run_of_images_gets_curves_confusion_and_mistakes(run: RunDir) -> None:
    spec = Spec("classification", (1, 8, 8), 3, classes=3)
    x, y = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    seen = Collected(x, y, torch.eye(3)[(y + 1) % 3])
    paths = figures.draw(run, data=data(spec, x, y), model=model, collected=seen, best_step=4)
    assert [p.name for p in paths] == ["learning_curves.png", "schedule.png", "confusion.png", "mistakes.png"]
    assert all(p.parent == run.figures and is_picture(p) for p in paths)


@pytest.mark.parametrize(
    ("task", "width", "name"), [("classification", 2, "plane"), ("regression", 1, "fit"), ("regression", 2, None)]
)
def test_a_run_on_the_line_or_the_plane_gets_its_function(run: RunDir, task: str, width: int, name: str | None) -> None:
    outputs = 2 if task == "classification" else 1
    x = torch.rand(20, width)
    y = (x[:, 0] > 0.5).long() if task == "classification" else x[:, :1]
    model = nn.Sequential(nn.Linear(width, outputs), nn.Dropout(0.5))
    paths = figures.draw(run, data=data(Spec(task, (width,), outputs), x, y), model=model, best_step=None)  # type: ignore[arg-type]
    assert [p.stem for p in paths[2:]] == ([name] if name else [])
    assert all(map(is_picture, paths))
    assert model.training


def test_a_run_on_text_gets_its_loss_by_position(run: RunDir) -> None:
    windows = Windows(torch.arange(500) % 7, 20, 20)
    spec = Spec("language", (20,), 7, vocabulary=7)
    text = Data("text", spec, windows, windows, None, "")
    model = nn.Embedding(7, 7)
    paths = figures.draw(run, data=text, model=model, best_step=None)
    assert [p.stem for p in paths[2:]] == ["loss_by_position"]
    assert all(map(is_picture, paths))
    with torch.no_grad():
        model.weight.zero_()  # knows nothing: log 7 everywhere
    losses = cross_entropy(model.eval(), Batch(torch.zeros(3, 9).long(), torch.ones(3, 9).long())).detach()
    assert losses.ndim == 0
    axes = loss_by_position(losses.expand(3, 9), 7).axes[0]
    assert axes.lines[1].get_ydata() == pytest.approx([math.log(7)] * 9)
    short = Data("text", spec, windows, windows.take_first(1).take_first(1), None, "")
    assert len(figures.draw(run, data=short, model=model, best_step=None)) == 3


def test_positions_are_grouped_without_a_gap() -> None:
    for n in (1, 4, 9, 64, 1024):
        found = position_groups(n)
        assert [begin for begin, _ in found] == [0, *(end for _, end in found[:-1])]
        assert found[-1][1] == n


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    spec = Spec("density", (2,), 1)
    empty = data(spec, torch.rand(3, 2), torch.rand(3))
    assert figures.draw(RunDir(tmp_path), data=empty, model=nn.Linear(2, 1)) == []


def test_a_figure_is_saved_whole(tmp_path: Path) -> None:
    path = save(schedule(CURVES["lr"]), tmp_path / "figures" / "schedule.png")
    assert is_picture(path)
    assert [p.name for p in path.parent.iterdir()] == ["schedule.png"]


def test_importing_costs_no_matplotlib_and_drawing_no_pyplot() -> None:
    program = (
        "import sys, dlrun.analysis.figures\nassert 'matplotlib' not in sys.modules\n"
        "from dlrun.analysis.figures.curves import schedule\nschedule([(1, 0.1)])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
