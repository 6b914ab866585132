"""The claims of fine-tuning, on runs that violate them too."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from dlrun.storage.results import results
from dlrun.studies.fine_tuning import FineTuning
from tests.made_sweeps import made_sweep

SIZES = [10, 100, 1000]


def claims(folder: Path, ratios: list[float], *, seeds: int = 5, noise: float = 0.02) -> list[Any]:
    def metrics(values: dict[str, Any]) -> dict[str, float]:
        i = SIZES.index(values["dataset.per_class"])
        wobble = math.exp(noise * ((values["seed"] * 7 + i) % 5 - 2))
        factor = ratios[i] * wobble if values["init_from"] else 1.0
        return {"test/error": 0.3 / (i + 1) * (1 + 0.1 * values["seed"]) * factor}

    grid = {"dataset.per_class": SIZES, "init_from": [None, "outputs/runs/x"], "seed": list(range(seeds))}
    return [*FineTuning().claims(results(made_sweep(folder / "sweep", grid, metrics)))]


@pytest.mark.parametrize(
    ("ratios", "noise", "expected"),
    [
        ([0.5, 0.6, 0.8], 0.02, ["held"] * 3),
        ([0.5, 1.0, 1.5], 0.02, ["held", "undecided", "not held"]),
        ([0.9, 0.9, 0.9], 0.5, ["undecided"] * 3),
    ],
)
def test_each_size_is_judged_by_itself(tmp_path: Path, ratios: list[float], noise: float, expected: list[str]) -> None:
    found = claims(tmp_path, ratios, noise=noise)
    assert [claim.verdict for claim in found] == expected
    assert [
        size in claim.text for size, claim in zip(("10 training", "100 training", "1,000 training"), found, strict=True)
    ] == [True] * 3
    assert all(f"{ratio:.3g} times" in claim.evidence for ratio, claim in zip(ratios, found, strict=True))


def test_the_interval_is_wider_than_students_of_one_size_alone(tmp_path: Path) -> None:
    (first, *_) = claims(tmp_path, [0.5, 0.5, 0.5])
    logs = [math.log(0.5) + 0.02 * ((seed * 7) % 5 - 2) for seed in range(5)]
    alone = stats.t.interval(0.95, 4, loc=sum(logs) / 5, scale=stats.sem(logs))
    shown = [float(word) for word in first.evidence.partition("interval ")[2].replace(" to ", " ").split()[:2]]
    assert shown[0] < math.exp(alone[0]) and math.exp(alone[1]) < shown[1]


def test_too_few_runs_decide_nothing(tmp_path: Path) -> None:
    assert [claim.verdict for claim in claims(tmp_path, [0.5] * 3, seeds=1)] == ["undecided"]


def test_the_figure_has_both_kinds_on_logarithmic_axes(tmp_path: Path) -> None:
    claims(tmp_path, [0.5, 0.6, 0.8])
    from dlrun.storage.sweepdir import SweepDir

    (found,) = FineTuning().figures(results(SweepDir(tmp_path / "sweep")))
    (axes,) = found.figure.axes
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["fine-tuned", "from scratch"]
