"""Scaling laws: the fit against laws that are known, the claims on runs that hold and that violate them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlrun.storage.results import Result, results
from dlrun.studies.scaling.fit import SizedRun, fit_size_law, frontier, panel_runs, split_held_out
from dlrun.studies.scaling.power_law import fit_law, fit_line
from dlrun.studies.scaling_laws import ScalingLaws, read_runs
from tests.made_sweeps import made_sweep

HELD, NOT, OPEN = "held", "not held", "undecided"
WIDTHS, TOKENS, LARGE = [16, 24, 32, 48, 64], [25_600, 64_000, 160_000, 400_000, 1_000_000], 208


def parameters(width: int) -> float:
    return 48.0 * width**2 + 129 * width


def law(n: float, d: float) -> float:
    return 1.2 + 30 * n**-0.4 + 60 * d**-0.45


def made(
    folder: Path,
    loss: Callable[[float, float], float] = law,
    *,
    widths: list[int] = WIDTHS,
    large: float | None = 1.0,
    noise: float = 0.003,
) -> list[Result]:
    """A grid of runs of this law, and one of ten times the parameters whose loss is `large` times that."""
    draw = np.random.default_rng(0)

    def metrics(values: dict[str, Any]) -> dict[str, float]:
        n, d = parameters(values["model.width"]), values["dataset.train_size"]
        if values["model.width"] == LARGE:
            return {"test/loss": loss(n, d) * large} if d == TOKENS[-1] and large else {}
        return {"test/loss": loss(n, d) * math.exp(noise * draw.normal())}

    def curves(values: dict[str, Any]) -> dict[str, list[tuple[int, float]]]:
        end = loss(parameters(values["model.width"]), values["dataset.train_size"])
        return {"val/loss": [(s, end + (4 - end) * (1 - s / 1000) ** 2) for s in range(100, 1001, 100)]}

    keys = {"model.width": [*widths, LARGE], "dataset.train_size": TOKENS, "seed": [0]}
    sweep = made_sweep(folder / "sweep", keys, metrics, curves=curves)
    found = [r for r in results(sweep) if r.metrics]
    for result in found:
        n = parameters(result.value("model.width"))
        result.summary.update({"parameters": n, "flop_per_step": 6 * n * 2048, "steps": 1000})
    return found


# -- the fit ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("floor", [0.0, 1.2])
def test_a_law_without_noise_is_found(floor: float) -> None:
    n, d = (np.array(v, dtype=float) for v in zip(*[(parameters(w), t) for w in WIDTHS for t in TOKENS], strict=True))
    found = fit_law(law(n, d) - 1.2 + floor, n, d)  # type: ignore[arg-type]
    assert found is not None
    assert found.floor == pytest.approx(floor, abs=2e-3)
    assert (found.exponent(0), found.exponent(1)) == pytest.approx((0.4, 0.45), abs=2e-3)
    assert found.loss(1e7, 1e8) == pytest.approx(law(1e7, 1e8) - 1.2 + floor, abs=3e-3)
    assert found.log_rms < 1e-4


def test_the_intervals_hold_what_they_are_to_hold() -> None:
    draw = np.random.default_rng(1)
    n, d = (np.array(v, dtype=float) for v in zip(*[(parameters(w), t) for w in WIDTHS for t in TOKENS], strict=True))
    exponents, losses = 0, 0
    for _ in range(40):
        found = fit_law(law(n, d) * np.exp(0.005 * draw.normal(size=len(n))), n, d)  # type: ignore[arg-type]
        assert found is not None
        low, high = found.exponent_interval(0)
        exponents += low < 0.4 < high
        low, high = found.interval(2.1e6, 1e6)
        losses += low < law(2.1e6, 1e6) * math.exp(0.005 * draw.normal()) < high
    # 38 of 40 are expected, fewer than 34 once in a hundred times
    assert min(exponents, losses) >= 34


def test_the_interval_of_a_line_is_scipys() -> None:
    from scipy.stats import linregress, t

    x = np.array([1e4, 3e4, 1e5, 3e5, 1e6])
    y = 5 * x**-0.1 * np.exp(0.01 * np.random.default_rng(0).normal(size=5))
    found, known = fit_line(y, x), linregress(np.log(x), np.log(y))  # type: ignore[arg-type]
    assert found is not None
    half = t.ppf(0.975, 3) * known.stderr
    assert (found.slope, found.low, found.high) == pytest.approx((known.slope, known.slope - half, known.slope + half))
    middle = known.intercept + known.slope * math.log(1e7)
    left = np.log(y) - known.intercept - known.slope * np.log(x)
    away = math.log(1e7) - np.log(x).mean()
    half = t.ppf(0.975, 3) * math.sqrt((left @ left) / 3 * (1 + 1 / 5) + (known.stderr * away) ** 2)
    assert found.loss(1e7) == pytest.approx(math.exp(middle))
    assert found.interval(1e7) == pytest.approx((math.exp(middle - half), math.exp(middle + half)))


def test_too_few_runs_have_no_law() -> None:
    assert fit_law([3.0, 2.0, 1.5], [1, 2, 3]) is None
    assert fit_law([3.0, 2.0, 1.5, 1.2], [1, 1, 2, 2]) is None
    assert fit_law([3.0, 2.0, math.nan, 1.2], [1, 2, 3, 4]) is None
    assert fit_line([1.0, 2.0], [1.0, 2.0]) is None


# -- the claims -------------------------------------------------------------------------------------------------------


def verdicts(found: list[Result]) -> list[str]:
    claims = ScalingLaws().claims(found)
    assert all(claim.text.endswith(".") and claim.evidence.endswith(".") for claim in claims)
    return [claim.verdict for claim in claims]


def test_runs_of_a_law_hold_all_claims(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert verdicts(found) == [HELD] * 4
    size, data, compute, large = (claim.evidence for claim in ScalingLaws().claims(found))
    assert "Exponent 0.4" in size and "over 5 values, 14,352 to 204,864" in size
    assert "over 5 values, 25,600 to 1,000,000" in data and "fitted to all 25 runs" in data
    assert "points of the frontier" in compute
    assert "2,103,504 parameters, 10.3 times" in large
    # there is a floor, of which a straight line knows nothing
    line = float(re.search(r"straight line through the 5 runs on the whole text predicts (\S+)", large)[1])  # type: ignore[index]
    assert line < law(2_103_504, 1e6)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"large": 1.1}, [HELD, HELD, HELD, NOT]),  # it does not keep what the small ones promise
        ({"large": 0.9}, [HELD, HELD, HELD, NOT]),
        ({"large": None}, [HELD, HELD, HELD, OPEN]),
        ({"noise": 0.2}, [NOT, NOT, HELD, OPEN]),  # the interval holds anything
        ({"loss": lambda n, d: 2.0}, [NOT, NOT, NOT, OPEN]),
        ({"loss": lambda n, d: 1.2 + 60 * d**-0.45}, [NOT, HELD, NOT, OPEN]),
        ({"loss": lambda n, d: 1.2 + 30 * n**-0.4}, [HELD, NOT, HELD, HELD]),
        ({"loss": lambda n, d: 1.0 + n / 1e5 + 60 * d**-0.45}, [NOT, NOT, NOT, NOT]),  # the larger, the worse
        ({"loss": lambda n, d: 2.0 + (n > 6e4) * -0.6}, [NOT, NOT, NOT, None]),  # a jump is no power law
        ({"widths": [16, 64]}, [OPEN, OPEN, None, OPEN]),
    ],
)
def test_claims(tmp_path: Path, change: dict[str, Any], expected: list[str | None]) -> None:
    """None stands for a claim that is not tested."""
    found = verdicts(made(tmp_path, **change))
    assert [f for f, e in zip(found, expected, strict=True) if e] == [e for e in expected if e]


def test_one_row_has_a_law_of_its_own(tmp_path: Path) -> None:
    row = [r for r in made(tmp_path) if r.value("dataset.train_size") == TOKENS[-1]]
    assert verdicts(row)[:2] == [HELD, OPEN]
    fitted = fit_size_law(split_held_out(read_runs(row))[0])
    assert fitted is not None and fitted.names == ("parameters",)


def test_no_runs_and_runs_without_what_is_needed(tmp_path: Path) -> None:
    assert verdicts([]) == [OPEN] * 4
    assert list(ScalingLaws().figures([])) == []
    untested = made(tmp_path)[:3]
    untested[0].summary.metrics = {"val/loss": 1.0}
    untested[1].summary.flop_per_step = None
    untested[2].summary.metrics = {"test/loss": math.nan}
    assert read_runs(untested) == []


def test_the_frontier_is_the_lower_envelope() -> None:
    small = SizedRun(10, 1, 100.0, 2.0, ((50.0, 3.0), (100.0, 2.0)))
    large = SizedRun(100, 1, 1000.0, 1.0, ((100.0, 3.5), (500.0, 2.5), (1000.0, 1.0)))
    assert frontier([small, large]) == [(100.0, 2.0), (500.0, 2.0), (1000.0, 1.0)]
    assert frontier([]) == []


def test_what_is_much_larger_is_held_out(tmp_path: Path) -> None:
    runs = read_runs(made(tmp_path))
    fitted, large = split_held_out(runs)
    assert (len(fitted), len(large)) == (25, 1)
    assert split_held_out(fitted) == (fitted, [])
    assert [t.tokens for t in panel_runs(fitted, "tokens")] == TOKENS
    assert [t.parameters for t in panel_runs(fitted, "parameters")] == [parameters(w) for w in WIDTHS]


# -- the figures ------------------------------------------------------------------------------------------------------


def test_three_panels_and_the_grid(tmp_path: Path) -> None:
    panels, grid = ScalingLaws().figures(made(tmp_path))
    assert [panels.name, grid.name] == ["scaling_laws", "grid"]
    axes = panels.figure.axes
    assert [a.get_xlabel() for a in axes] == ["compute, FLOP", "training text, tokens", "parameters"]
    assert all((a.get_xscale(), a.get_yscale()) == ("log", "log") for a in axes)
    assert all("nats per token" in a.get_ylabel() for a in axes)
    for a, exponent in zip(axes, "γβα", strict=True):
        assert any(f"{exponent} = " in text.get_text() for text in a.get_legend().get_texts())  # type: ignore[union-attr]
    runs = next(line for line in axes[2].get_lines() if line.get_label() == "runs")
    assert len(runs.get_xdata()) == len(WIDTHS)  # type: ignore[arg-type]
    predictions = [line for line in axes[2].get_lines() if line.get_marker() == "_"]
    assert [line.get_linestyle() for line in predictions] == ["-", ":"]


def test_a_few_runs_are_drawn_without_a_law(tmp_path: Path) -> None:
    (only,) = ScalingLaws().figures(made(tmp_path)[:2])
    assert [a.get_xlabel() for a in only.figure.axes][2] == "parameters"
