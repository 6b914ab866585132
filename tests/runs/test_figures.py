"""A run gets the figures that suit its data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dlrun.analysis.figures.classes import as_probabilities
from dlrun.datasets.language.windows import Windows
from dlrun.engine.evaluation import Collected
from dlrun.models.autoregressive_pixels import AutoregressivePixels
from dlrun.models.gaussian_mixture import GaussianMixture
from dlrun.runs import figures
from dlrun.storage.journal import Journal
from dlrun.storage.rundir import RunDir
from dlrun.types import Batch, Data, Spec, Split
from tests.analysis.test_figures import CURVES, is_picture


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


def test_a_run_of_images_gets_curves_confusion_and_mistakes(run: RunDir) -> None:
    spec = Spec("classification", (1, 8, 8), 3, classes=3)
    x, y = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    seen = Collected(x, y, torch.eye(3)[(y + 1) % 3])
    paths = figures.draw(run, data=data(spec, x, y), model=model, collected=seen, best_step=4)
    assert [p.name for p in paths] == ["learning_curves.png", "schedule.png", "confusion.png", "mistakes.png"]
    assert all(p.parent == run.figures and is_picture(p) for p in paths)


def test_a_regression_of_several_inputs_gets_its_values_beside_the_true_ones(run: RunDir) -> None:
    spec = Spec("regression", (3,), 1, target_scale=((5.0,), (2.0,)))
    x, y = torch.rand(6, 3), torch.rand(6, 1)
    paths = figures.draw(run, data=data(spec, x, y), model=nn.Linear(3, 1), collected=Collected(x, y, y), best_step=4)
    assert [p.stem for p in paths[2:]] == ["predicted"]
    assert is_picture(paths[2])


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


def test_a_density_of_the_plane_is_drawn_over_its_points(run: RunDir) -> None:
    spec = Spec("density", (2,), 1)
    paths = figures.draw(run, data=data(spec, torch.randn(20, 2), torch.zeros(20)), model=GaussianMixture((2,)))
    assert [p.stem for p in paths[2:]] == ["density"]
    assert all(map(is_picture, paths))


def test_a_density_of_pixels_draws_pictures(run: RunDir) -> None:
    spec = Spec("density", (1, 3, 3), 1, levels=2)
    model = AutoregressivePixels((1, 3, 3), 2, channels=2, blocks=1)
    paths = figures.draw(run, data=data(spec, torch.rand(9, 1, 3, 3).round(), torch.zeros(9)), model=model)
    assert [p.stem for p in paths[2:]] == ["samples"]
    assert all(map(is_picture, paths))


def test_a_run_on_text_gets_its_loss_by_position(run: RunDir) -> None:
    windows = Windows(torch.arange(500) % 7, 20, 20)
    spec = Spec("language", (20,), 7, vocabulary=7)
    text = Data("text", spec, windows, windows, None, "")
    model = nn.Embedding(7, 7)
    paths = figures.draw(run, data=text, model=model, best_step=None)
    assert [p.stem for p in paths[2:]] == ["loss_by_position"]
    assert all(map(is_picture, paths))
    short = Data("text", spec, windows, windows.take_first(1).take_first(1), None, "")
    assert len(figures.draw(run, data=short, model=model, best_step=None)) == 3


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    spec = Spec("density", (2,), 1)
    empty = data(spec, torch.rand(3, 2), torch.rand(3))
    assert figures.draw(RunDir(tmp_path), data=empty, model=nn.Linear(2, 1)) == []


def test_outputs_that_are_probabilities_are_drawn_as_they_are() -> None:
    logits = 3 * torch.randn(9, 4)
    shares = logits.softmax(1)
    assert torch.equal(as_probabilities(logits), shares) and torch.equal(as_probabilities(shares), shares)
