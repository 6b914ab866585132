"""The interval of a metric's mean stays within what is possible, has a width, and covers skewed values."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from dlrun.analysis import intervals
from dlrun.analysis.intervals import confidence_interval, mean_interval
from dlrun.analysis.statistics import describe_difference, paired_difference, spread
from dlrun.analysis.value_range import ANY, ValueRange, value_range
from dlrun.report.tables import format_interval

SHARE = ValueRange(0.0, 1.0, samples=200)
POSITIVE = ValueRange(least=0.0)


@pytest.mark.parametrize("values", [[0.0, 0.005, 0.02], [0.985, 1.0, 0.99], [0.0, 0.0, 0.0], [0.5, 1.0]])
def test_a_share_stays_between_0_and_1(values: list[float]) -> None:
    found = spread(values, possible=SHARE)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.low < found.high


def test_a_metric_has_the_noise_of_its_steps() -> None:
    # two seeds, three samples of 200 better on both: sd step/√6, t 12.706
    found = paired_difference({0: 0.985, 1: 0.98}, {0: 0.97, 1: 0.965}, possible=SHARE)
    half = 12.7062 * 0.005 / math.sqrt(6) / math.sqrt(2)
    assert (found.low, found.high) == pytest.approx((-0.015 - half, -0.015 + half), rel=1e-5)
    assert found.significant is False
    same = spread([0.02, 0.02, 0.02], possible=SHARE)
    assert (same.sd, same.high - same.low) == (0, pytest.approx(2 * 4.30265 * 0.005 / math.sqrt(12 * 3)))


def test_resamples_drawn_some_at_a_time_are_those_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=37)
    together = np.random.default_rng(0).integers(0, 37, (intervals.RESAMPLES, 37))
    for drawn in (1 << 20, 1000, 1):  # the last a resample at a time
        monkeypatch.setattr(intervals, "DRAWN", drawn)
        intervals._resampled_means.cache_clear()
        assert np.array_equal(intervals._resampled_means(values.tobytes()), values[together].mean(1))


def test_values_that_are_no_shares_have_no_steps() -> None:
    assert SHARE.step([0.98512, 0.97]) == 0
    assert ANY.step([0.985]) == 0


def test_what_the_seeds_do_not_vary_has_no_interval() -> None:
    found = spread([0.1 + 0.2, 0.3, 0.3])
    assert (found.n, math.isnan(found.low)) == (3, True)
    three = paired_difference({0: 1.0, 1: 2.0, 2: 4.0}, {0: 0.9, 1: 1.9, 2: 3.9})
    assert three.constant
    assert "better than A in val/loss, by the same -0.1 on each of 3 seeds" in describe_difference(
        three, metric="val/loss", first="A", second="B"
    )
    two = paired_difference({0: 1.0, 1: 2.0}, {0: 0.9, 1: 1.9})
    assert "better" not in describe_difference(two, metric="val/loss", first="A", second="B")


def test_a_loss_is_not_negative_but_one_of_ones_own_may_be() -> None:
    values = [0.4, 0.5, 2.0]
    assert spread(values, possible=value_range("val/loss", ["dlrun.losses.mse.mse()"])).low == 0
    assert spread(values, possible=value_range("val/loss", ["mine.elbo()"])).low < 0
    assert value_range("val/perplexity", ["perplexity, a token of 50"]).least == 1
    assert value_range("val/error", [None]) == ValueRange(0.0, 1.0)
    assert value_range("val/acc", ["dlrun.metrics.top_k(k=5)", "mine.acc()"]).most == math.inf


@pytest.mark.parametrize("n", [2, 3, 5, 12])
@pytest.mark.parametrize(
    ("draw", "mean", "least"),
    [
        (lambda random, n: random.normal(1, 0.1, n), 1.0, 0.92),
        (lambda random, n: random.lognormal(0, 0.5, n), math.exp(0.125), 0.90),
        (lambda random, n: random.lognormal(0, 1, n), math.exp(0.5), 0.88),
        (lambda random, n: random.exponential(1, n), 1.0, 0.92),
        (lambda random, n: random.binomial(200, 0.02, n) / 200, 0.02, 0.86),
    ],
    ids=["normal", "lognormal", "lognormal, sd 1", "exponential", "errors of 200"],
)
def test_positive_values_are_covered(
    draw: Callable[[np.random.Generator, int], np.ndarray], mean: float, least: float, n: int
) -> None:
    # Student's t alone covers 81 % of the means of 5 lognormal values of sd 1
    random = np.random.default_rng(n)
    found = [mean_interval(draw(random, n), ValueRange(0.0, samples=200)) for _ in range(250)]
    assert sum(low <= mean <= high for low, high in found) / len(found) >= least


def test_near_one_is_skewed_as_near_zero_is() -> None:
    errors = np.array([0.001, 0.004, 0.03])
    low, high = mean_interval(errors, ValueRange(0.0, 1.0))
    mirrored = mean_interval(1 - errors, ValueRange(0.0, 1.0))
    assert mirrored == pytest.approx((1 - high, 1 - low))
    assert high > confidence_interval(errors)[1]


@pytest.mark.parametrize(
    ("values", "possible"),
    [
        ([0.0001, 0.93], POSITIVE),  # Student's t of two values: up to 6.9 times the larger
        ([0.02, 0.03], POSITIVE),
        ([0.4, 0.7], SHARE),  # 0 to 1 is all that is possible
        ([0.95, 0.9999], SHARE),
    ],
)
def test_an_interval_that_says_nothing_says_so(values: list[float], possible: ValueRange) -> None:
    found = spread(values, possible=possible)
    assert found.vague and (found.low, found.high) == mean_interval(np.array(values), possible)
    assert format_interval(found) == f"{found.low:.4g} to {found.high:.4g} (too few seeds)"


def test_few_skewed_values_say_nothing_about_their_mean() -> None:
    # five test errors of polynomials of degree 9: Cox's interval ends at 140 times the largest
    skewed = np.array([0.013, 0.02, 0.1, 0.6, 1.7])
    low, high = mean_interval(skewed, POSITIVE)
    assert low < 0.1 and high > 20 * skewed.max()
    found = spread(skewed.tolist(), possible=POSITIVE)
    assert found.vague and (found.low, found.high) == (low, high)
    assert format_interval(found).endswith("(too few seeds)")
    mirrored = spread((1 - np.array([0.0001, 0.0002, 0.02])).tolist(), possible=ValueRange(0.0, 1.0))
    assert mirrored.vague
    assert spread([1e-300, 1e-3, 1e200], possible=POSITIVE).vague
    assert format_interval(spread([0.5])) == "–"


@pytest.mark.parametrize(
    ("values", "possible"),
    [
        ([0.02, 0.021], POSITIVE),
        ([1.0, 1.1, 1.3, 2.9, 0.7], POSITIVE),
        ([0.0, 0.0, 0.0], SHARE),
        ([1.0, 1.0, 1.0], SHARE),
        ([0.0, 0.0, 0.005], SHARE),
        ([-0.01, 0.5, 2.0], ANY),
    ],
)
def test_other_values_keep_theirs(values: list[float], possible: ValueRange) -> None:
    found = spread(values, possible=possible)
    assert not found.vague and (found.low, found.high) == mean_interval(np.array(values), possible)
