"""The studies: each claim is held by runs that fulfil it, not held by runs that violate it, undecided by too few."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from benchmarks import chance_of_claims
from dlrun.analysis.intervals import confidence_interval
from dlrun.config import instantiate
from dlrun.storage import lookup
from dlrun.storage.jobs.job import Job
from dlrun.storage.journal import Journal
from dlrun.storage.results import Result
from dlrun.storage.rundir import RunDir
from dlrun.storage.summary import Summary
from dlrun.studies.density import Density, draw_likelihoods, entropy, moons_log_density
from dlrun.studies.depth import Boundary, Depth, draw_layers
from dlrun.studies.double_descent import DoubleDescent
from dlrun.studies.learning_rate import LearningRate
from dlrun.studies.mnist_seeds import MnistSeeds, binomial_tail, histogram
from dlrun.studies.overfitting import Overfitting
from dlrun.studies.polynomial_capacity import Fit, PolynomialCapacity, draw_fits, first_draw
from dlrun.studies.schedules import Schedules, best_differences, held_out_values
from dlrun.studies.study import Claim
from dlrun.studies.table import argmin, common_seeds, means, medians, rank_correlation, tabulate
from dlrun.studies.two_descents import shape
from dlrun.studies.weight_decay import WeightDecay
from tests.conftest import Called

CONF = Path(__file__).parents[2] / "conf"
Curves = Mapping[str, Sequence[tuple[int, float]]]


def made_up(
    folder: Path, n: int, config: dict[str, Any], metrics: Mapping[str, float], curves: Curves | None = None
) -> Result:
    """A finished run that was never trained: `config` by dotted keys."""
    nested: dict[str, Any] = {"name": "made-up", "seed": 0}
    for key, value in config.items():
        *path, last = key.split(".")
        inner = nested
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    run = RunDir(folder / str(n))
    if curves:
        run.path.mkdir()
        journal = Journal(run.journal)
        for name, points in curves.items():
            for step, value in points:
                journal.metrics(step, 0.0, {name: value})
        journal.close()
    overrides = tuple(f"{key}={value}" for key, value in config.items())
    return Result(Job(n, overrides, nested, str(n), "group"), run, "finished", Summary({"metrics": dict(metrics)}))


def grid(
    folder: Path, key: str, values: Sequence[Any], seeds: int, metrics: Callable[[Any, int], Mapping[str, float]]
) -> list[Result]:
    """A run for each value of a key and each seed."""
    pairs = [(value, seed) for value in values for seed in range(seeds)]
    return [made_up(folder, n, {key: v, "seed": s}, metrics(v, s)) for n, (v, s) in enumerate(pairs)]


def verdicts(claims: Sequence[Claim]) -> list[str]:
    assert all(claim.text.endswith(".") and claim.evidence for claim in claims)
    return [claim.verdict for claim in claims]


HELD, NOT, OPEN = "held", "not held", "undecided"

# -- capacity ---------------------------------------------------------------------------------------------------------


def capacity(
    folder: Path, train: Sequence[float], val: Sequence[float], test: Sequence[float], seeds: int = 3
) -> list[Result]:
    def metrics(degree: int, seed: int) -> dict[str, float]:
        return {"train/mse": train[degree], "val/mse": val[degree] * (1 + 0.01 * seed), "test/mse": test[degree]}

    return grid(folder, "model.degree", range(len(train)), seeds, metrics)


FALLS, U = [0.5, 0.3, 0.2, 0.1, 0.05], [0.5, 0.3, 0.2, 0.4, 0.9]


@pytest.mark.parametrize(
    ("train", "val", "test", "expected"),
    [
        (FALLS, U, U, [HELD, HELD, HELD]),
        ([0.5, 0.3, 0.3, 0.3 + 1e-9, 0.1], U, U, [HELD, HELD, HELD]),  # level, to rounding
        ([0.5, 0.3, 0.31, 0.1, 0.05], U, U, [NOT, HELD, HELD]),
        ([0.5, 0.3, math.nan, 0.1, 0.05], U, U, [NOT, HELD, HELD]),
        (FALLS, FALLS, FALLS, [HELD, NOT, HELD]),
        (FALLS, [0.1, 0.3, 0.4, 0.5, 0.6], U, [HELD, HELD, NOT]),
        (FALLS[:1], U[:1], U[:1], [OPEN, OPEN, OPEN]),
        (FALLS[:2], U[:2], U[:2], [HELD, OPEN, OPEN]),
    ],
)
def test_capacity(tmp_path: Path, train: list[float], val: list[float], test: list[float], expected: list[str]) -> None:
    assert verdicts(PolynomialCapacity().claims(capacity(tmp_path, train, val, test))) == expected


def test_capacity_of_no_runs_or_untested_ones(tmp_path: Path) -> None:
    assert verdicts(PolynomialCapacity().claims([])) == [OPEN] * 3
    untested = grid(tmp_path, "model.degree", range(4), 2, lambda d, s: {"train/mse": 1 / (1 + d), "val/mse": U[d]})
    assert verdicts(PolynomialCapacity().claims(untested)) == [HELD, OPEN, OPEN]
    assert list(PolynomialCapacity().figures([])) == []


def test_one_rise_on_one_draw_is_found(tmp_path: Path) -> None:
    runs = capacity(tmp_path, FALLS, U, U)
    runs[-1].summary.metrics["train/mse"] = 0.11
    assert verdicts(PolynomialCapacity().claims(runs)) == [NOT, HELD, HELD]


def test_an_undecided_claim_shows_the_comparison_that_fails(tmp_path: Path) -> None:
    # degree 9 differs by factors from draw to draw, degree 0 hardly
    last = [0.011, 3.0, 0.02, 0.5, 0.012]

    def metrics(degree: int, seed: int) -> dict[str, float]:
        test = {0: 0.33, 5: 0.0157, 9: last[seed]}[degree]
        return {"train/mse": 1.0 / (1 + degree), "val/mse": test, "test/mse": test}

    _, inside, selected = PolynomialCapacity().claims(grid(tmp_path, "model.degree", [0, 5, 9], 5, metrics))
    assert verdicts([inside, selected]) == [OPEN, OPEN]
    # with one degree inside, an interval for all at once is Student's t
    low, high = (math.exp(v) for v in confidence_interval([math.log(0.0157 / v) for v in last]))
    for claim in (inside, selected):
        assert claim.evidence.endswith("Not told apart from degree 9.")
        assert "at degree 0: 0.0476 (0.0476 to 0.0476)" in claim.evidence
        shown = re.search(r"at degree 9: (\S+) \((\S+) to (\S+)\)", claim.evidence)
        assert (
            shown
            and float(shown[2]) == pytest.approx(low, rel=0.01)
            and float(shown[3]) == pytest.approx(high, rel=0.01)
        )


def test_the_pictures_are_of_the_first_whole_draw(tmp_path: Path) -> None:
    runs = capacity(tmp_path, FALLS, U, U)
    assert [r.job.seed for r in first_draw(runs[1:])] == [1] * 5  # degree 0 of draw 0 is missing
    assert [r.value("model.degree") for r in first_draw(runs[::-1])] == [0, 1, 2, 3, 4]


def test_a_panel_a_degree_shows_data_truth_and_fit() -> None:
    x = torch.linspace(0, 1, 5)
    drawn = draw_fits([Fit(d, x, x, x, x**2, 100 * x) for d in range(7)])
    assert [axes.get_title() for axes in drawn.axes] == [f"degree {d}" for d in range(7)]
    assert {line.get_label() for line in drawn.axes[3].get_lines()} == {"f*", "fit"}
    assert drawn.axes[3].get_ylim()[1] < 2


# -- seeds ------------------------------------------------------------------------------------------------------------


def runs_with(folder: Path, errors: Sequence[float]) -> list[Result]:
    return [made_up(folder, n, {"seed": n}, {"test/error": error}) for n, error in enumerate(errors)]


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([0.009] * 99 + [0.008], [HELD, HELD, HELD]),
        ([0.012] * 99 + [0.0135], [NOT, NOT, NOT]),
        ([0.009] * 6, [HELD, OPEN, OPEN]),
        ([0.012] * 6, [NOT, OPEN, OPEN]),
        ([0.009, 0.011] * 50, [OPEN, HELD, NOT]),
        ([0.009] * 3, [OPEN, OPEN, OPEN]),
        ([0.008, 0.02], [OPEN, NOT, HELD]),
        ([], [OPEN, OPEN, OPEN]),
    ],
)
def test_seeds(tmp_path: Path, errors: list[float], expected: list[str]) -> None:
    assert verdicts(MnistSeeds().claims(runs_with(tmp_path, errors))) == expected


def test_what_chance_could_explain_has_its_number(tmp_path: Path) -> None:
    errors = [0.009, 0.009, 0.0101]
    median, worst, best = MnistSeeds(best=0.008).claims(
        [made_up(tmp_path, n, {"seed": n}, {"test/error": e}) for n, e in enumerate(errors)]
    )
    assert verdicts([median, worst, best]) == [OPEN] * 3
    assert "1 of them above the limit and 2 below" in median.evidence and "p = 0.5, above 0.05" in median.evidence
    assert "over 3 runs" in median.evidence and "It takes 100 runs" in worst.evidence
    assert "It takes 100 runs" in best.evidence
    (one, *_) = MnistSeeds().claims([made_up(tmp_path, 9, {"seed": 0}, {"test/error": 0.5})])
    assert "over 1 run," in one.evidence


def test_the_sign_test_is_the_binomial_distribution() -> None:
    from scipy.stats import binom

    assert all(binomial_tail(k, n) == pytest.approx(binom.cdf(k, n, 0.5)) for n in (1, 7, 100) for k in (0, n // 2, n))


def test_the_histogram_counts_every_run() -> None:
    axes = histogram([0.0082, 0.01, 0.0131, 0.02], (0.0082, 0.01, 0.013)).axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 4  # type: ignore[attr-defined]
    assert [line.get_xdata()[0] for line in axes.get_lines()] == pytest.approx([0.82, 1.155, 2.0])  # type: ignore[index]


# -- weight decay -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test", "seeds", "expected"),
    [
        ([0.0, 0.1, 0.3, 0.9], [1.0, 0.8, 0.7, 1.1], 3, [HELD, HELD]),
        ([0.0, 0.1, 0.3, 0.9], [1.0, 1.3, 1.6, 2.3], 3, [NOT, HELD]),  # the gap grows
        ([0.9, 0.3, 0.1, 0.0], [1.6, 0.9, 0.6, 0.4], 3, [HELD, NOT]),  # training gets better
        ([0.0, 0.3, 0.1, 0.9], [1.0, 0.5, 0.9, 1.0], 3, [NOT, NOT]),  # the ends differ, the middle is out of order
        ([0.0, 0.1, 0.3, 0.9], [1.0, 0.8, 0.7, 1.1], 1, [OPEN, OPEN]),
        ([0.0, 0.1], [1.0, 0.8], 3, [OPEN, OPEN]),
    ],
)
def test_weight_decay(tmp_path: Path, train: list[float], test: list[float], seeds: int, expected: list[str]) -> None:
    penalties = [0, 1e-4, 1e-3, 1e-2][: len(train)]

    def metrics(penalty: float, seed: int) -> dict[str, float]:
        i, noise = penalties.index(penalty), 0.01 * seed
        return {"train/loss": train[i] + noise * i / 10, "test/loss": test[i] + noise}

    runs = grid(tmp_path, "optimizer.weight_decay", penalties, seeds, metrics)
    assert verdicts(WeightDecay().claims(runs)) == expected
    (found,) = WeightDecay().figures(runs)
    assert [axes.get_xlabel() for axes in found.figure.axes] == ["weight decay"] * 2


def test_a_gap_that_the_seeds_hide_is_not_held(tmp_path: Path) -> None:
    def metrics(penalty: float, seed: int) -> dict[str, float]:
        noise = (-1) ** seed * (1 if penalty else -1)
        return {"train/loss": penalty, "test/loss": 1 - penalty + 0.5 * noise}

    runs = grid(tmp_path, "optimizer.weight_decay", [0, 1e-4, 1e-3], 4, metrics)
    assert verdicts(WeightDecay().claims(runs)) == [NOT, HELD]


# -- double descent ---------------------------------------------------------------------------------------------------

WIDTHS = [2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize(
    ("curve", "seeds", "expected"),
    [
        ([0.6, 0.3, 0.4, 0.5, 0.3, 0.2], 3, [HELD, HELD, HELD, HELD]),
        ([0.6, 0.3, 0.4, 0.5, 0.45, 0.4], 3, [HELD, HELD, HELD, NOT]),
        ([0.3, 0.4, 0.45, 0.5, 0.3, 0.2], 3, [NOT, HELD, HELD, HELD]),  # one descent, and that the second
        (
            [0.6, 0.5, 0.4, 0.3, 0.2, 0.1],
            3,
            [OPEN, NOT, HELD, HELD],
        ),  # falls all the way: no rise, so no bottom before one
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 3, [NOT, HELD, NOT, NOT]),  # rises all the way
        ([0.6, 0.3, 0.4, 0.5, 0.3, 0.2], 2, [OPEN, OPEN, OPEN, OPEN]),
        ([0.6, 0.3, 0.4], 3, [OPEN, OPEN, OPEN, OPEN]),
    ],
)
def test_double_descent(tmp_path: Path, curve: list[float], seeds: int, expected: list[str]) -> None:
    def metrics(width: int, seed: int) -> dict[str, float]:
        return {"test/error": curve[WIDTHS.index(width)] + 0.003 * seed * (1 if width < 20 else -1), "train/error": 0.1}

    runs = grid(tmp_path, "model.width", WIDTHS[: len(curve)], seeds, metrics)
    assert verdicts(DoubleDescent().claims(runs)) == expected
    assert [finding.name for finding in DoubleDescent().figures(runs)] == ["double_descent"]


def test_noise_alone_has_no_double_descent(tmp_path: Path) -> None:
    # 40 flat curves with noise: a peak is found in each, and held out it should be told from noise in 1 of 40
    held = 0
    for trial in range(40):
        noise = np.random.default_rng(trial).normal(size=(64 + 1, 5))
        runs = grid(tmp_path, "model.width", WIDTHS, 5, lambda w, s, e=noise: {"test/error": 0.3 + 0.01 * e[w, s]})
        held += DoubleDescent().claims(runs)[1].verdict == HELD
    assert held <= 4


def test_the_shape_of_a_curve() -> None:
    found = shape(dict(zip(WIDTHS, [0.6, 0.3, 0.4, 0.5, 0.3, 0.2], strict=True)))
    assert found is not None
    assert (found.before, found.peak, found.behind) == (4, 16, 64)
    assert shape({1: 0.5, 2: 0.1}) is None


# -- learning rate ----------------------------------------------------------------------------------------------------

STEPS = range(1, 41)
COURSES: dict[str, list[float]] = {
    "stalls": [2.3 - 0.001 * i for i in STEPS],
    "converges": [2.3 * 0.8**i for i in STEPS],
    "bounces": [2.0 + (-1) ** i for i in STEPS],
    "diverges": [2.3 + i for i in STEPS],
    "breaks": [2.3 + i if i < 30 else math.nan for i in STEPS],
}


def rates(folder: Path, courses: Sequence[str], val: Sequence[float]) -> list[Result]:
    runs = []
    for i, course in enumerate(courses):
        for seed in range(2):
            curve = list(zip(STEPS, COURSES[course], strict=True))
            metrics = {"val/loss": val[i], "train/loss": val[i] / 2}
            config = {"optimizer.lr": 10.0 ** (i - 4), "seed": seed}
            runs.append(made_up(folder, len(runs), config, metrics, {"train/loss": curve}))
    return runs


@pytest.mark.parametrize(
    ("courses", "val", "expected"),
    [
        (["stalls", "converges", "bounces"], [2.0, 0.1, 1.5], [HELD, HELD, HELD]),
        (["stalls", "converges", "diverges"], [2.0, 0.1, 1.5], [HELD, HELD, HELD]),
        (["stalls", "converges", "breaks"], [2.0, 0.1, 1.5], [HELD, HELD, HELD]),
        (["converges", "converges", "bounces"], [2.0, 0.1, 1.5], [NOT, HELD, HELD]),
        (["stalls", "converges", "converges"], [2.0, 0.1, 0.05], [HELD, NOT, NOT]),  # the best rate is at the end
        (["stalls", "stalls", "bounces"], [2.0, 1.9, 2.5], [HELD, NOT, HELD]),
        (["stalls", "converges"], [2.0, 0.1], [OPEN, OPEN, OPEN]),
        ([], [], [OPEN, OPEN, OPEN]),
    ],
)
def test_learning_rate(tmp_path: Path, courses: list[str], val: list[float], expected: list[str]) -> None:
    runs = rates(tmp_path, courses, val)
    assert verdicts(LearningRate().claims(runs)) == expected
    assert [f.name for f in LearningRate().figures(runs)] == (["curves", "rates"] if runs else [])


def test_a_rate_not_told_apart_shows_by_how_much(tmp_path: Path) -> None:
    runs = rates(tmp_path, ["stalls", "converges", "bounces"], [2.0, 0.1, 1.5])
    one_seed = [run for run in runs if run.job.seed == 0]
    *_, two = LearningRate().claims(runs)
    *_, one = LearningRate().claims(one_seed)
    assert "told apart from the selected rate, 0.001. Ratio to that" in two.evidence
    assert one.verdict == OPEN and "(one seed)" in one.evidence


# -- schedules --------------------------------------------------------------------------------------------------------


def schedules(folder: Path, losses: Mapping[str, Sequence[float]], seeds: int = 4) -> list[Result]:
    runs = []
    for name, row in losses.items():
        for i, loss in enumerate(row):
            for seed in range(seeds):
                config = {"schedule._target_": f"dlrun.schedules.curves.{name}", "optimizer.lr": 10.0**-i, "seed": seed}
                # the seeds differ much, and alike for all: paired they do not
                noise = 0.2 * seed + 0.001 * ((7 * len(runs)) % 5)
                runs.append(made_up(folder, len(runs), config, {"val/loss": loss + noise}))
    return runs


@pytest.mark.parametrize(
    ("losses", "seeds", "expected"),
    [
        ({"constant": [0.5, 0.4, 0.5], "cosine": [0.3, 0.35], "linear": [0.6, 0.5]}, 4, HELD),
        ({"constant": [0.5, 0.2, 0.5], "cosine": [0.3, 0.35], "linear": [0.6, 0.5]}, 4, NOT),
        ({"constant": [0.5, 0.3, 0.5], "cosine": [0.3, 0.35]}, 4, OPEN),
        ({"constant": [0.5, 0.4], "cosine": [0.3, 0.35]}, 4, OPEN),  # a smaller rate may be better
        ({"constant": [0.5, 0.4, 0.5], "cosine": [0.3, 0.35]}, 2, OPEN),
        ({"cosine": [0.3, 0.35], "linear": [0.6, 0.5]}, 4, OPEN),
        ({"constant": [0.3, 0.35, 0.4]}, 4, OPEN),
        ({}, 4, OPEN),
    ],
)
def test_schedules(tmp_path: Path, losses: dict[str, list[float]], seeds: int, expected: str) -> None:
    runs = schedules(tmp_path, losses, seeds)
    assert verdicts(Schedules().claims(runs)) == [expected]
    assert len(list(Schedules().figures(runs))) == (1 if runs else 0)


def test_a_best_rate_is_not_judged_by_the_seed_that_chose_it() -> None:
    table = {0.1: {0: 0.0, 1: 2.0, 2: 2.0}, 0.2: {0: 1.0, 1: 1.0, 2: 1.0}}
    assert held_out_values(table, [0, 1, 2]) == {0: 1.0, 1: 2.0, 2: 2.0}


def test_the_best_of_many_rates_that_are_alike_beats_no_constant_one() -> None:
    # the hardest case: one constant rate is clearly the best, and all rates of the schedules are as good as that
    missed = 0
    for trial in range(200):
        values = np.random.default_rng(trial).normal(size=(13, 6))
        far = {rate: dict(enumerate((values[0] + 50).tolist())) for rate in (1, 3)}
        constant = {**far, 2: dict(enumerate(values[0].tolist()))}
        schedules = [{r: dict(enumerate(values[1 + 4 * s + r].tolist())) for r in range(4)} for s in range(3)]
        found = best_differences(constant, schedules, range(6))
        missed += any(high < 0 or low > 0 for low, high in found)
    assert missed / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


# -- noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", chance_of_claims.NOISES)
def test_no_claim_is_held_by_noise(noise: str) -> None:
    trials = 12  # docs/chance.md has hundreds
    for study, text, verdicts in chance_of_claims.rates(trials, noise):
        # that nothing is learnt is true of runs that learn nothing
        if text != "Too small a rate stalls.":
            assert verdicts[HELD] <= 3, (study, text, verdicts)


# -- depth ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "losses", "expected"),
    [([0.0, 0.1], [0.1, 0.2], HELD), ([0.0, 0.1], [0.2, 0.1], NOT), ([0.005], [0.1], NOT), ([], [], OPEN)],
)
def test_depth(tmp_path: Path, errors: list[float], losses: list[float], expected: str) -> None:
    runs = [
        made_up(tmp_path, n, {"seed": n}, {"train/error": e, "val/loss": v})
        for n, (e, v) in enumerate(zip(errors, losses, strict=True))
    ]
    assert verdicts(Depth().claims(runs)) == [expected]


def test_the_line_is_where_the_classifier_is_undecided() -> None:
    points = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])
    drawn = draw_layers([points] * 9, [points[None]] * 9, torch.tensor([0, 1]), Boundary((1.0, 2.0), -0.5))
    assert [axes.get_title() for axes in drawn.axes] == [f"d = {d}" for d in range(9)]
    (line,) = [line for line in drawn.axes[8].get_lines() if line.get_color() == "#000000"]
    for x, y in (line.get_xy1(), line.get_xy2()):  # type: ignore[attr-defined]
        assert x + 2 * y - 0.5 == pytest.approx(0)


# -- over-fitting -----------------------------------------------------------------------------------------------------

DOWN = [(s, 2.0 / s) for s in range(1, 9)]
TURNS = [(s, 1.0 + 0.1 * abs(s - 4)) for s in range(1, 9)]


@pytest.mark.parametrize(
    ("curves", "expected"),
    [
        ([{"train/loss": DOWN, "val/loss": TURNS}] * 2, HELD),
        ([{"train/loss": DOWN, "val/loss": DOWN}] * 2, NOT),
        ([{"train/loss": TURNS, "val/loss": TURNS}] * 2, NOT),
        ([{"train/loss": DOWN, "val/loss": TURNS}, {"train/loss": DOWN, "val/loss": DOWN}], NOT),
        ([{"train/loss": DOWN, "val/loss": TURNS[:2]}], OPEN),
        ([], OPEN),
    ],
)
def test_overfitting(tmp_path: Path, curves: list[Curves], expected: str) -> None:
    runs = [made_up(tmp_path, n, {"seed": n}, {}, found) for n, found in enumerate(curves)]
    assert verdicts(Overfitting().claims(runs)) == [expected]
    drawn = list(Overfitting().figures(runs))
    assert len(drawn) == (0 if expected == OPEN else 1)
    if expected == HELD:
        labels = [text.get_text() for text in drawn[0].figure.axes[0].get_legend().get_texts()]  # type: ignore[union-attr]
        assert labels == ["training", "validation", "best step (4)"]


def test_a_rise_that_chance_could_explain_has_its_interval(tmp_path: Path) -> None:
    ends = [2.0, 1.2]
    validation = [[(1, 3.0), (2, 1.0), (3, 1.5), (4, end)] for end in ends]
    runs = [
        made_up(tmp_path, n, {"seed": n}, {}, {"train/loss": DOWN, "val/loss": v}) for n, v in enumerate(validation)
    ]
    (claim,) = Overfitting().claims(runs)
    shown = re.search(r"The end is (\S+) times step (\d+) \(95 % interval (\S+) to (\S+), for all", claim.evidence)
    assert claim.verdict == OPEN and shown
    ratio, low, high = (float(shown[i]) for i in (1, 3, 4))
    assert ratio == pytest.approx(math.sqrt(2.0 * 1.2) / dict(validation[0])[int(shown[2])], rel=0.01)
    assert low < 1 < high


def test_overfitting_says_and_draws_the_same_step(tmp_path: Path) -> None:
    # least at 3, 4 and 6 on the three seeds; of the median curve at 4
    validation = [[3.0, 2.0, 0.5, 1.1, 1.2, 1.3, 1.4], [3.0, 2.0, 1.5, 1.0, 1.1, 1.2, 1.3]]
    validation += [[3.0, 2.0, 1.6, 1.4, 1.2, 0.9, 1.5]]
    curves: list[Curves] = [{"train/loss": DOWN[:7], "val/loss": [*enumerate(row, 1)]} for row in validation]
    runs = [made_up(tmp_path, n, {"seed": n}, {}, found) for n, found in enumerate(curves)]
    (claim,), (shown,) = Overfitting().claims(runs), Overfitting().figures(runs)
    assert "validation 1.1 at step 4, 1.4 at the end; training 0.5 there" in claim.evidence
    assert "best step (4)" in [text.get_text() for text in shown.figure.axes[0].get_legend().get_texts()]  # type: ignore[union-attr]


def test_schedules_are_named_in_words(tmp_path: Path) -> None:
    runs = schedules(tmp_path, {"constant": [0.5, 0.4, 0.5], "step_decay": [0.3, 0.35]}, 4)
    (shown,) = Schedules().figures(runs)
    assert [text.get_text() for text in shown.figure.legends[0].get_texts()] == ["constant", "step decay"]
    assert [axes.get_ylabel() for axes in shown.figure.axes] == ["validation loss", "validation loss at the best rate"]


# -- from trained runs ------------------------------------------------------------------------------------------------


def trained(call: Callable[..., Called], *overrides: str) -> Result:
    """A run as a sweep would have it, trained alone."""
    settings = ("hydra.mode=RUN", "tracking.enabled=false", "trainer.figures=false", "trainer.threads=1")
    assert call("train", *overrides, *settings).code == 0
    run = lookup.all_runs()[-1]
    config = OmegaConf.to_container(OmegaConf.load(run.config), resolve=True)
    assert isinstance(config, dict)
    return Result(Job(0, overrides, config, "", ""), run, "finished", run.summary())


def test_the_pictures_of_the_capacity_study_come_from_the_runs(call: Callable[..., Called]) -> None:
    runs = [trained(call, "+experiment=polynomial_capacity", f"model.degree={degree}") for degree in (1, 5)]
    pictures, errors = PolynomialCapacity().figures(runs)
    line = next(line for line in pictures.figure.axes[1].get_lines() if line.get_label() == "fit")
    truth = next(line for line in pictures.figure.axes[1].get_lines() if line.get_label() == "f*")
    # degree 5 lies within the noise of f*, degree 1 does not
    assert np.abs(line.get_ydata() - truth.get_ydata()).max() < 0.5
    assert len(pictures.figure.axes[1].collections[0].get_offsets()) == 20  # type: ignore[arg-type]
    assert [line.get_label() for line in errors.figure.axes[0].get_lines()] == ["training", "validation", "test"]
    # the draw follows the seed, and the test does not
    other = trained(call, "+experiment=polynomial_capacity", "model.degree=5", "seed=1")
    assert other.metrics["train/mse"] != runs[1].metrics["train/mse"]


def test_the_panels_of_depth_come_from_the_run(call: Callable[..., Called]) -> None:
    run = trained(call, "+experiment=depth", "trainer.steps=300", "model.depth=3")
    (found,) = Depth().figures([run])
    assert len(found.figure.axes) == 4
    assert len(found.figure.axes[0].collections) == 2
    assert verdicts(Depth().claims([run])) == [HELD if run.metrics["train/error"] == 0 else NOT]


# -- what they share --------------------------------------------------------------------------------------------------


def test_tables(tmp_path: Path) -> None:
    runs = grid(tmp_path, "model.width", [16, 2, 8], 2, lambda w, s: {"val/loss": w + s} if (w, s) != (8, 1) else {})
    table = tabulate(runs, "model.width", "val/loss")
    by_seed = {width: {each.seed: value for each, value in row.items()} for width, row in table.items()}
    assert by_seed == {2: {0: 2.0, 1: 3.0}, 8: {0: 8.0}, 16: {0: 16.0, 1: 17.0}}
    assert ([each.seed for each in common_seeds(table)], argmin(means(table)), medians(table)) == (
        [0],
        2,
        {2: 2.5, 8: 8.0, 16: 16.5},
    )
    assert common_seeds({}) == []


def test_the_rank_correlation_is_scipys() -> None:
    from scipy.stats import spearmanr

    x, y = np.random.default_rng(0).integers(0, 6, (2, 20))
    assert rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert math.isnan(rank_correlation([1, 2, 3], [1, 1, 1]))


# -- density ----------------------------------------------------------------------------------------------------------


def density_runs(folder: Path, losses: Mapping[str, float], noise: float = 0.01) -> list[Result]:
    targets = {
        "gaussian": ("gaussian_mixture.GaussianMixture", 1),
        "gaussian_mixture": ("gaussian_mixture.GaussianMixture", 8),
    }
    found = []
    for name, loss in losses.items():
        target, components = targets.get(name, ("realnvp.RealNVP", None))
        for seed in range(4):
            config = {"model._target_": f"dlrun.models.{target}", "model.components": components, "seed": seed}
            found.append(made_up(folder, len(found), config, {"val/nll": loss + noise * (seed % 2 - (loss > 1))}))
    return found


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ({"gaussian": 1.9, "gaussian_mixture": 1.1, "realnvp": 0.9}, HELD),
        ({"realnvp": 0.9, "gaussian_mixture": 1.1, "gaussian": 1.9}, HELD),
        ({"gaussian": 1.9, "gaussian_mixture": 0.8, "realnvp": 0.9}, NOT),
        ({"gaussian": 1.9, "gaussian_mixture": 1.1}, OPEN),
    ],
)
def test_richer_densities_are_compared_by_seed(tmp_path: Path, losses: dict[str, float], verdict: str) -> None:
    assert verdicts(Density().claims(density_runs(tmp_path, losses))) == [verdict]


def test_the_moons_have_the_density_of_their_draw() -> None:
    line = torch.linspace(-2.5, 3.5, 201, dtype=torch.float64)
    values = moons_log_density(torch.cartesian_prod(line, line), 0.1).exp().view(201, 201)
    assert float(torch.trapezoid(torch.trapezoid(values, line), line)) == pytest.approx(1.0, abs=1e-6)
    # of wide noise it is nearly a normal distribution's, whose entropy is known
    wide = entropy(lambda x: moons_log_density(x, 30.0), noise=30.0)
    assert wide == pytest.approx(1 + math.log(2 * math.pi * 30.0**2), abs=0.02)


def test_the_likelihoods_are_drawn_with_and_without_a_truth() -> None:
    for truth in (None, 1.0):
        fig = draw_likelihoods({"one normal": {0: 1.9, 1: 1.8}, "mixture of normals": {0: 1.2}}, truth)
        assert len(fig.axes) == 1


STUDIES = [path for path in sorted((CONF / "experiment").glob("*.yaml")) if "study:" in path.read_text()]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_sweeps_by_itself_and_its_class_can_be_made(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert content["hydra"]["mode"] == "MULTIRUN"
    assert "seed" in content["hydra"]["sweeper"]["params"]
    assert f"# dlrun train +experiment={path.stem}" in path.read_text()
    study = instantiate.make(content["study"])
    assert all(claim.verdict == OPEN for claim in study.claims([]))
    assert list(study.figures([])) == []
    if content["evaluation"].get("test") == "every":
        subjects = (
            "polynomial_capacity",
            "mnist_seeds",
            "weight_decay",
            "double_descent",
            "scaling_laws",
            "fine_tuning",
            "metric_learning",
        )
        assert path.stem.startswith(subjects)


def test_there_are_eighteen_studies() -> None:
    assert len(STUDIES) == 18
