"""Double descent over epochs, on made-up curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dlrun.storage.results import Result
from dlrun.storage.summary import Summary
from dlrun.studies.double_descent_epochs import DoubleDescentEpochs, in_bins
from tests.studies.test_studies import HELD, NOT, OPEN, made_up, verdicts

EPOCHS = [1, 2, 4, 8, 16, 32, 64]
PER_EPOCH = 20
TWO, MORE, ONE, TURN = (
    [0.6, 0.3, 0.1, 0.2, 0.4, 0.3, 0.2],
    [0.6, 0.3, 0.1, 0.3, 0.6, 0.4, 0.3],
    [0.6, 0.3, 0.1, 0.2, 0.3, 0.4, 0.4],
    [0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1],
)
LEARNT = [2.0, 1.5, 1.0, 0.6, 0.1, 0.01, 0.0]
ENTROPY = -0.8 * math.log(0.8) - 0.2 * math.log(0.2 / 9)
"""Of a label of ten classes, 20 % wrong."""


def sweep(
    folder: Path,
    curve: Callable[[int, float | None], list[float]],
    *,
    loss: list[float] = LEARNT,
    seeds: int = 4,
    classes: int | None = 10,
) -> list[Result]:
    """Runs of two widths, with and without an average of the weights."""
    cases = [(width, average, seed) for width in (8, 64) for average in (None, 0.98) for seed in range(seeds)]
    found = []
    for n, (width, average, seed) in enumerate(cases):
        noise = np.random.default_rng(n).normal(0, 0.002, len(EPOCHS))
        steps = [PER_EPOCH * epoch for epoch in EPOCHS]
        values = (np.array(curve(width, average)) + noise).tolist()
        curves = {"val/error": [*zip(steps, values, strict=True)], "train/loss": [*zip(steps, loss, strict=True)]}
        config = {
            "model.width": width,
            "trainer.ema": average,
            "trainer.batch_size": 50,
            "dataset.label_noise": 0.2,
            "seed": seed,
        }
        summary = {"data": {"name": "digits", "train": 1000}, "spec": {"classes": classes}}
        found.append(replace(made_up(folder, n, config, {}, curves), summary=Summary(summary)))
    return found


@pytest.mark.parametrize(
    ("wide", "narrow", "averaged", "loss", "seeds", "expected"),
    [
        (TWO, ONE, ONE, LEARNT, 4, [HELD] * 6),
        (TWO, TWO, TWO, LEARNT, 4, [HELD, HELD, HELD, HELD, OPEN, OPEN]),  # neither width nor steps make it
        (TWO, MORE, MORE, LEARNT, 4, [HELD, HELD, HELD, HELD, NOT, NOT]),
        (ONE, TWO, ONE, LEARNT, 4, [HELD, HELD, HELD, OPEN, OPEN, OPEN]),  # the narrowest model alone has it
        (TURN, ONE, ONE, LEARNT, 4, [OPEN, NOT, NOT, HELD, OPEN, OPEN]),  # no rise
        (TWO, ONE, ONE, [2.0] * 7, 4, [HELD, HELD, NOT, HELD, HELD, HELD]),  # nothing is learnt by heart
        (TWO, ONE, ONE, [0.1] * 7, 4, [HELD, HELD, NOT, HELD, HELD, HELD]),  # it was before the minimum
        (TWO, ONE, ONE, LEARNT, 2, [OPEN, OPEN, HELD, OPEN, OPEN, OPEN]),
    ],
)
def test_double_descent_over_epochs(
    tmp_path: Path,
    wide: list[float],
    narrow: list[float],
    averaged: list[float],
    loss: list[float],
    seeds: int,
    expected: list[str],
) -> None:
    def curve(width: int, average: float | None) -> list[float]:
        return narrow if width == 8 else wide if average is None else averaged

    runs = sweep(tmp_path, curve, loss=loss, seeds=seeds)
    assert verdicts(DoubleDescentEpochs().claims(runs)) == expected
    assert [found.name for found in DoubleDescentEpochs().figures(runs)] == ["double_descent_epochs"]


def test_the_entropy_of_wrong_labels_is_in_the_evidence(tmp_path: Path) -> None:
    runs = sweep(tmp_path, lambda width, average: TWO)
    assert f"{ENTROPY:.3g} nats" in DoubleDescentEpochs().claims(runs)[2].evidence


def test_without_the_number_of_classes_there_is_no_entropy(tmp_path: Path) -> None:
    runs = sweep(tmp_path, lambda width, average: TWO, classes=None)
    assert DoubleDescentEpochs().claims(runs)[2].verdict == OPEN
    assert len([*DoubleDescentEpochs().figures(runs)]) == 1


@pytest.mark.parametrize("bins", [1, 2, 3])
def test_bins_are_those_of_numpy(bins: int) -> None:
    random = np.random.default_rng(bins)
    steps, values = np.arange(16, 4001, 16), random.normal(size=250)
    edges = 2.0 ** (np.arange(0, 9 * bins) / bins - 1e-9)
    number = np.histogram(steps / 16, edges)[0]
    total = np.histogram(steps / 16, edges, weights=values)[0]
    found = in_bins([*zip(steps.tolist(), values.tolist(), strict=True)], per_epoch=16, bins=bins)
    assert list(found.values()) == pytest.approx((total[number > 0] / number[number > 0]).tolist())


def test_noise_alone_falls_no_less_when_averaged(tmp_path: Path) -> None:
    held = 0
    for trial in range(10):
        random = np.random.default_rng(trial)
        folder = tmp_path / str(trial)
        folder.mkdir()
        runs = sweep(folder, lambda width, average, r=random: (0.2 + 0.01 * r.normal(size=7)).tolist())
        held += any(verdict == HELD for verdict in verdicts(DoubleDescentEpochs().claims(runs))[3:])
    assert held <= 2


def test_a_run_that_diverges_is_drawn_and_decides_nothing(tmp_path: Path) -> None:
    runs = sweep(tmp_path, lambda width, average: [*TWO[:5], math.nan, math.nan])
    assert HELD not in verdicts(DoubleDescentEpochs().claims(runs))[3:]
    assert len([*DoubleDescentEpochs().figures(runs)]) == 1
