"""Training FLOP against time: published models as they are published, and runs among them."""

from __future__ import annotations

import numpy as np
import pytest

from dlrun.analysis.figures.training_cost import training_cost
from dlrun.analysis.published_cost import A100, PUBLISHED

BY_NAME = {each.name: each for each in PUBLISHED}


def test_counts_follow_from_what_the_sources_say() -> None:
    # OpenAI's method: images, epochs, 10⁹ multiplications and additions, two operations, three passes
    assert BY_NAME["AlexNet"].flop == pytest.approx(1.2e6 * 90 * 0.75e9 * 2 * 3, rel=0.05)
    assert BY_NAME["VGG16"].flop == pytest.approx(1.2e6 * 74 * 16e9 * 2 * 3, rel=0.01)
    # 6 operations a parameter and token
    assert BY_NAME["BERT"].flop == pytest.approx(6 * 355e6 * 250e9, rel=0.01)
    assert BY_NAME["GPT-3"].flop == pytest.approx(6 * 174.6e9 * 300e9, rel=0.01)
    assert BY_NAME["PaLM"].flop == pytest.approx(6 * 540.35e9 * 780e9, rel=0.02)
    # the ranges in the book's text: 10¹⁸ to 10¹⁹ for vision, 10²⁰ to 10²³ for language
    assert all(4e17 < each.flop < 2e19 for each in PUBLISHED if each.domain == "vision")
    assert all(each.source for each in PUBLISHED)


def test_an_a100_at_its_peak_takes_a_kilowatt_hour_for_three_exaflop() -> None:
    assert pytest.approx(2.8e18, rel=0.01) == 3.6e6 * A100


def test_the_figure_has_the_runs_and_all_published_models() -> None:
    axes = training_cost({"mnist": [(1577836800.0, 1e13), (1577836800.0, 2e13)]}).axes[0]
    points = np.concatenate([drawn.get_offsets() for drawn in axes.collections])
    assert len(points) == len(PUBLISHED) + 2
    assert [2020.0, 1e13] in points.round(6).tolist()
    told = {text.get_text() for text in axes.texts}
    assert {"AlexNet", "GPT-3", "1 kWh", "1 GWh"} <= told
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["vision", "language", "other", "mnist"]
