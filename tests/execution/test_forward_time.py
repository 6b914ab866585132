"""The bench of forward passes: what is timed, how often, and what its figures show."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dlrun.analysis.figures.forward import Scored, forward_time, score_against_operations
from dlrun.execution import forward_time as bench
from dlrun.execution.forward_time import Subject, Timed, random_inputs, time_forward
from dlrun.execution.kernel_rates import best_product
from dlrun.models.convnet import ConvNet
from dlrun.models.mlp import MLP
from dlrun.types import Spec


class Noted(nn.Module):
    """Notes the batches that it is given."""

    def __init__(self, seen: list[tuple[str, int]], name: str) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.seen, self.name = seen, name

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training and not torch.is_grad_enabled()
        self.seen.append((self.name, len(x)))
        out: Tensor = self.layer(x)
        return out


class Last(nn.Module):
    """The outputs of an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lstm(x)[0]
        return out


def test_all_models_and_sizes_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SHORT", 0.0)  # a pass each
    monkeypatch.setattr(bench, "AS_WELL", 0.0)
    seen: list[tuple[str, int]] = []
    subjects = [Subject(name, Noted(seen, name), torch.zeros(8, 4)) for name in "ab"]
    rounds: list[int] = []
    timed = time_forward(subjects, [1, 8], seconds=0.0, on_round=rounds.append)
    assert [(cell.subject.label, cell.size) for cell in timed] == [("a", 1), ("a", 8), ("b", 1), ("b", 8)]
    assert rounds == [1, 2, 3]
    assert all(len(cell.seconds) == 3 and min(cell.seconds) > 0 for cell in timed)
    cells = [("a", 1), ("a", 8), ("b", 1), ("b", 8)]
    # the warm-up takes each twice; then the rounds, every second one backwards
    assert seen == [cell for cell in cells for _ in range(2)] + cells + cells[::-1] + cells
    assert all(subject.model.training for subject in subjects)


def test_a_time_is_the_median_of_a_sample() -> None:
    cell = Timed(Subject("m", nn.Identity(), torch.zeros(4, 1)), 4, [4.0, 8.0, 100.0])
    assert cell.per_sample() == (2.0, 1.5, 13.5)


def test_operations_are_those_of_one_forward_pass() -> None:
    # a convolution 1→32 of 5×5 at 24×24 places, 32→64 of 5×5 at 4×4, and two matrices: of the slides' network
    by_hand = 2 * (24 * 24 * 32 * 25 + 4 * 4 * 64 * 32 * 25 + 256 * 200 + 200 * 10)
    model = ConvNet((1, 28, 28), 10)
    assert Subject("m", model, torch.zeros(3, 1, 28, 28)).flop() == by_hand
    # an LSTM takes 4 gates of 8 inputs and 5 states a token
    assert Subject("m", Last(), torch.zeros(1, 7, 8)).flop() == 2 * 7 * (20 * 8 + 20 * 5)
    assert all(p.requires_grad and p.device.type == "cpu" for p in model.parameters())
    assert Subject("m", MLP((4,), 3, width=5, depth=1), torch.zeros(1, 4)).parameters == 4 * 5 + 5 + 5 * 3 + 3


class Branching(nn.Linear):
    """A layer that looks at its inputs, as a model of counts does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x[x.sum(1).nonzero()[:, 0]])


def test_operations_are_counted_where_they_depend_on_numbers() -> None:
    assert Subject("m", Branching(4, 3), torch.ones(2, 4)).flop() == 2 * 4 * 3


def test_inputs_have_the_shape_of_a_data_set() -> None:
    assert random_inputs(Spec("classification", (3, 8, 8), 10, classes=10), 4).shape == (4, 3, 8, 8)
    tokens = random_inputs(Spec("language", (16,), 11, vocabulary=11), 64)
    assert tokens.shape == (64, 16)
    assert sorted(tokens.unique().tolist()) == [*range(11)]


def test_the_figures_show_each_model() -> None:
    times = {"a": {1: (2.0, 1.9, 2.1), 2: (1.5, 1.4, 1.6)}, "b": {1: (200.0, 190.0, 210.0)}}
    axes = forward_time(times).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert axes.lines[0].get_ydata().tolist() == [2.0, 1.5]
    assert axes.get_yscale() == "log"  # from 1.5 to 200
    models = [Scored("a", 2e6, 61706, [0.9, 0.91]), Scored("b", 9e6, 11173962, [0.95])]
    axes = score_against_operations(models, "test/accuracy").axes[0]
    points = axes.collections[1].get_offsets()
    assert points.tolist() == [[2.0, 0.9], [2.0, 0.91]]
    assert axes.get_ylabel() == "test accuracy"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_rate_of_products_is_measured(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrun.execution.kernel_rates.LARGEST", 256)
    found = best_product(torch.device("cpu"), precision)
    assert found.size == 256
    assert found.rate > 1e8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_waited_for() -> None:
    device = torch.device("cuda")
    model = MLP((512,), 10, width=4096, depth=3).to(device)
    [one, many] = time_forward([Subject("m", model, torch.randn(4096, 512, device=device))], [1, 4096], seconds=0.5)
    # without waiting, both would be the time of a launch
    assert many.per_sample()[0] * 4096 > one.per_sample()[0]
    assert best_product(device, "bf16").rate > best_product(device, "fp32").rate
