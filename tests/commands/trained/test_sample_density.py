"""`dlrun sample` of a density: points and pictures, in the unit of the data set's files."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from dlrun.datasets.moons import moons
from dlrun.storage.lookup import all_runs
from tests.analysis.test_figures import is_picture
from tests.conftest import Called
from tests.facts import refuses

Call = Callable[..., Called]
MOONS = ("dataset=moons", "loss=nll", "model=gaussian", "optimizer=em", "trainer.batch_size=null", "trainer.steps=1")
QUICK = ("tracking.enabled=false", "trainer.figures=false", "evaluation.test=never")


@pytest.fixture
def run(here: Path, call: Call) -> str:
    assert call("train", *MOONS, *QUICK).code == 0
    return all_runs()[0].id


def test_points_are_drawn_in_the_unit_of_the_data(run: str, call: Call) -> None:
    done = call("sample", run, "--n", "4000")
    rows = [*csv.reader(io.StringIO(done.out))]
    assert rows[0] == ["x0", "x1"]
    drawn, raw = np.array(rows[1:], dtype=float), moons(normalise=False).train.x.numpy()  # type: ignore[attr-defined]
    assert len(drawn) == 4000
    np.testing.assert_allclose(drawn.mean(0), raw.mean(0), atol=0.06)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(raw.T), atol=0.06)
    assert call("sample", run, "--n", "4000").out == done.out
    assert call("sample", run, "--n", "4000", "--seed", "1").out != done.out


def test_points_are_written_as_the_file_s_ending_says(run: str, here: Path, call: Call) -> None:
    for name in ("p.csv", "p.npy", "p.png"):
        assert call("sample", run, "--n", "5", "--output", name).code == 0
    assert is_picture(here / "p.png")
    printed = call("sample", run, "--n", "5").out
    assert (here / "p.csv").read_text() == printed
    rows = np.array([*csv.reader(io.StringIO(printed))][1:], dtype=float)
    np.testing.assert_allclose(np.load(here / "p.npy"), rows, rtol=1e-4)
    refuses(call("sample", run, "--output", "p.txt"), ".npy", ".png", ".csv")
    refuses(call("sample", run, "--output", "no/p.csv"), "no/p.csv")
    refuses(call("sample", run, "--tokens", "5"), "--tokens", "density")
    refuses(call("sample", run, "--n", "0"), "at least 1")


def test_pictures_are_drawn_as_one(here: Path, call: Call) -> None:
    model = ("model=autoregressive_pixels", "model.channels=2", "model.blocks=1", "trainer.steps=2")
    assert call("train", "dataset.binarise=threshold", "loss=nll", *model, *QUICK).code == 0
    run = all_runs()[0].id
    assert call("sample", run, "--n", "3").code == 0
    assert is_picture(here / f"samples-{run}.png")
    assert call("sample", run, "--n", "3", "--output", "p.npy").code == 0
    drawn = np.load(here / "p.npy")
    assert drawn.shape == (3, 1, 8, 8)
    assert {*np.unique(drawn)} <= {0.0, 16.0}  # as in the files
    assert len(call("predict", run, "p.npy").out.splitlines()) == 1 + 3
    refuses(call("sample", run, "--output", "p.csv"), ".npy", ".png")


def test_a_file_s_samples_are_answered_by_their_log_density(run: str, here: Path, call: Call) -> None:
    raw = moons(normalise=False).train.x[:5].numpy()  # type: ignore[attr-defined]
    np.save(here / "points.npy", raw)
    rows = [*csv.reader(io.StringIO(call("predict", run, "points.npy").out))]
    assert rows[0] == ["log_prob"]
    fitted = moons().train.x.double().numpy()  # type: ignore[attr-defined]
    expected = multivariate_normal(fitted.mean(0), np.cov(fitted.T, bias=True)).logpdf(fitted[:5])
    np.testing.assert_allclose(np.array(rows[1:], dtype=float)[:, 0], expected, rtol=1e-4)
