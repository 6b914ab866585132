"""Seeds as evidence: against numpy and closed forms, and intervals that hold the truth as often as they say."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from dlrun.analysis.statistics import (
    BOOTSTRAP_FROM,
    Difference,
    confidence_interval,
    describe_difference,
    paired_difference,
    spread,
)
from dlrun.analysis.value_range import ValueRange

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("n", [1, 2, 5, 40])
@pytest.mark.parametrize("higher", [False, True])
def test_a_spread_is_what_numpy_says(n: int, higher: bool) -> None:
    values = np.random.default_rng(n).normal(size=n)
    found = spread(values.tolist(), higher_is_better=higher)
    assert (found.n, found.broken) == (n, 0)
    assert found.mean == pytest.approx(values.mean())
    assert found.median == np.median(values)
    assert (found.best, found.worst) == ((values.max(), values.min()) if higher else (values.min(), values.max()))
    assert found.sd == pytest.approx(values.std(ddof=1) if n > 1 else NAN, nan_ok=True)
    assert math.isnan(found.low) if n == 1 else found.low <= found.mean <= found.high


@pytest.mark.parametrize("value", [0.001, 0.999, 1 / 3])
def test_equal_values_have_no_spread(value: float) -> None:
    assert spread([value] * 30).sd == 0


def test_what_is_not_finite_is_counted_and_is_the_worst() -> None:
    found = spread([0.2, NAN, 0.4, INF])
    assert (found.n, found.broken, found.best) == (2, 2, 0.2)
    assert found.mean == pytest.approx(0.3)
    assert math.isnan(found.worst)
    nothing = spread([NAN])
    assert (nothing.n, nothing.broken) == (0, 1)
    assert math.isnan(nothing.mean)
    assert math.isnan(nothing.best)


def test_few_values_get_students_interval() -> None:
    # t(0.975) of 4 degrees of freedom is 2.776
    low, high = confidence_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764451 * math.sqrt(2.5) / math.sqrt(5)
    assert (low, high) == (pytest.approx(3 - half), pytest.approx(3 + half))
    assert all(map(math.isnan, confidence_interval([1.0])))
    assert confidence_interval([2.0, 2.0]) == (2.0, 2.0)


def test_many_values_get_a_bootstrap_that_follows_their_skew_and_repeats() -> None:
    values = np.exp(np.linspace(-1.5, 1.5, BOOTSTRAP_FROM))
    low, high = confidence_interval(values)
    assert (low, high) == confidence_interval(values)
    assert high - values.mean() > values.mean() - low
    assert values.min() <= low < high <= values.max()


@pytest.mark.parametrize(("n", "trials"), [(2, 2000), (3, 2000), (5, 2000), (9, 2000), (10, 500), (14, 300)])
def test_an_interval_holds_the_mean_95_times_of_100(n: int, trials: int) -> None:
    # a percentile bootstrap of 3 comes to 75 %, of 10 to 91 %; allowed are three standard errors
    allowed = 3 * math.sqrt(0.95 * 0.05 / trials)
    assert _coverage(n, lambda random, size: random.normal(size=size), trials) == pytest.approx(0.95, abs=allowed)


def test_an_interval_of_skewed_values_is_not_far_off() -> None:
    # log-normal with sd 0.5: an error's distribution over seeds is no more skewed than that
    centre = math.exp(0.125)
    for n in (3, 5, 9):
        assert _coverage(n, lambda random, size: random.lognormal(0, 0.5, size) - centre, trials=800) > 0.88


def _coverage(n: int, draw: Callable[[np.random.Generator, int], np.ndarray], trials: int) -> float:
    random = np.random.default_rng(n)
    found = [confidence_interval(draw(random, n)) for _ in range(trials)]
    return sum(low <= 0 <= high for low, high in found) / trials


def test_a_difference_is_paired_by_seed() -> None:
    first, second = {0: 1.0, 1: 2.0, 2: 4.0, 7: 9.0}, {2: 3.5, 0: 0.25, 1: 1.0, 8: 0.0}
    found = paired_difference(first, second)
    assert found.each == {0: -0.75, 1: -1.0, 2: -0.5}
    assert found.mean == pytest.approx(-0.75)
    assert (found.low, found.high) == confidence_interval([-0.75, -1.0, -0.5])
    assert found.gain == pytest.approx(0.75)
    assert found.significant is True


def test_pairing_finds_what_the_seeds_hide() -> None:
    seeds = np.random.default_rng(0).normal(0, 1, 5)
    noise = np.random.default_rng(1).normal(0, 0.01, 5)
    first = dict(enumerate(seeds))
    second = dict(enumerate(seeds - 0.1 + noise))
    assert paired_difference(first, second).significant
    assert spread([*first.values()]).low < spread([*second.values()]).high  # the two groups overlap


def test_a_seed_without_a_finite_value_is_left_out_and_said() -> None:
    found = paired_difference({0: 1.0, 1: INF, 2: 1.0}, {0: 2.0, 1: INF, 2: 2.5})
    assert (found.n, found.broken) == (2, 1)
    assert "1 more seed has no finite value" in describe_difference(found, metric="val/loss")


def _found(*differences: float, higher: bool = False) -> Difference:
    zero = dict.fromkeys(range(len(differences)), 0.0)
    return paired_difference(zero, dict(enumerate(differences)), higher_is_better=higher)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (_found(), "no common seed"),
        (_found(0.5), "says nothing about seed noise"),
        (_found(0.0, 0.0, 0.0), "have the same val/error on each of 3 seeds"),
        (_found(0.1, -0.1, 0.05), "No significant difference"),
        (_found(0.1, 0.11, 0.12), "B is worse than A"),
        (_found(-0.1, -0.11, -0.12), "B is better than A"),
        (_found(0.1, 0.11, 0.12, higher=True), "B is better than A"),
        (_found(0.1, 0.1, 0.1), "B is worse than A"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_words_follow_the_interval(found: Difference, words: str) -> None:
    assert words in describe_difference(found, metric="val/error", first="A", second="B")


@pytest.mark.parametrize(
    ("first", "second", "possible", "vague"),
    [
        ([0.3, 0.5], [0.4, 0.9], ValueRange(least=0.0), True),  # -1.65 to 2.15, of values up to 0.9
        ([0.30, 0.31], [0.29, 0.305], ValueRange(least=0.0), False),
        ([0.97, 0.98], [0.96, 0.985], ValueRange(0.0, 1.0), True),  # as of errors of 0.03 and 0.02
        ([-3.0, 5.0], [8.0, 1.0], ValueRange(), False),  # without a zero, nothing tells a large difference
    ],
)
def test_an_interval_as_wide_as_the_values_is_too_few_seeds(
    first: list[float], second: list[float], possible: ValueRange, vague: bool
) -> None:
    found = paired_difference(dict(enumerate(first)), dict(enumerate(second)), possible=possible)
    assert found.vague is vague
    assert ("too few to tell" in describe_difference(found, metric="val/loss")) is vague
    assert (-found).vague is vague
