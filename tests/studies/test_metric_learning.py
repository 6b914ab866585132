"""The study of embeddings: held by runs that fulfil its claims, not held by runs that violate them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dlrun.analysis.figures.embedding import embedding, in_the_plane
from dlrun.storage.results import Result
from dlrun.studies.metric_learning import MetricLearning
from tests.studies.test_studies import grid, verdicts

MININGS = ["random", "hard", "semi_hard"]


def runs(folder: Path, recalls: list[float], seeds: int = 4, noise: float = 0.001) -> list[Result]:
    """Runs of the three minings with about these recalls, where the inputs have 0.9."""

    def metrics(mining: str, seed: int) -> dict[str, float]:
        value = recalls[MININGS.index(mining)] + noise * ((seed + 2 * MININGS.index(mining)) % 4)
        found = {"recall_at_1": value, "recall_at_1_of_inputs": 0.9}
        return {f"{split}/{name}": each for split in ("val", "test") for name, each in found.items()}

    return grid(folder, "loss.mining", MININGS, seeds, metrics)


@pytest.mark.parametrize(
    ("recalls", "seeds", "expected"),
    [
        ([0.92, 0.95, 0.94], 4, ["held", "held", "held"]),
        ([0.95, 0.92, 0.91], 4, ["held", "held", "not held"]),
        ([0.92, 0.95, 0.80], 4, ["not held", "not held", "not held"]),
        ([0.8985, 0.95, 0.94], 4, ["undecided", "undecided", "held"]),
        ([0.92, 0.95, 0.94], 1, ["undecided", "undecided", "undecided"]),
    ],
)
def test_claims(tmp_path: Path, recalls: list[float], seeds: int, expected: list[str]) -> None:
    assert verdicts(MetricLearning().claims(runs(tmp_path, recalls, seeds))) == expected


def test_no_runs_and_other_runs_decide_nothing(tmp_path: Path) -> None:
    assert verdicts(MetricLearning().claims([])) == ["undecided"] * 3
    of_others = grid(tmp_path, "loss.mining", ["hard"], 3, lambda mining, seed: {"val/loss": 1.0})
    assert verdicts(MetricLearning().claims(of_others)) == ["undecided"] * 3
    assert list(MetricLearning().figures(of_others)) == []


def test_the_figure_has_a_panel_a_split(tmp_path: Path) -> None:
    (drawn,) = MetricLearning().figures(runs(tmp_path, [0.92, 0.95, 0.94]))
    titles = [axes.get_title() for axes in drawn.figure.axes]
    assert titles == ["new samples of the trained classes", "classes held out of training"]


def test_principal_components_are_those_of_scikit_learn() -> None:
    from sklearn.decomposition import PCA

    points = torch.randn(50, 6, generator=torch.Generator().manual_seed(1)) * torch.tensor([5.0, 3, 1, 1, 1, 1])
    oracle = PCA(2).fit(points.double().numpy())
    shown, shares = in_the_plane(points)
    expected = torch.from_numpy(oracle.transform(points.double().numpy()))
    torch.testing.assert_close(shown.double().abs(), expected.abs(), rtol=1e-4, atol=1e-4)
    assert shares == pytest.approx(oracle.explained_variance_ratio_.tolist(), abs=1e-4)


def test_an_embedding_is_labelled_as_what_it_is() -> None:
    y = torch.arange(12) % 3
    axes = embedding(torch.randn(12, 2), y, ["a", "b", "c"], [2]).axes[0]
    assert axes.get_xlabel() == "component 1 of the embedding"
    assert [each.get_label() for each in axes.collections] == ["a", "b", "c (held out)"]
    assert embedding(torch.randn(12, 5), y).axes[0].get_ylabel().startswith("principal component 2, ")
