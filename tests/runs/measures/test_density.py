"""A density's run: its loss takes the data set's targets away, and its numbers are of inputs in their own unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dlrun.config import compose
from dlrun.engine import loop
from dlrun.engine.state import State
from dlrun.runs.build import Built, build
from dlrun.storage.lookup import all_runs
from tests.conftest import Called
from tests.engine.test_loop import Notes, cloned, same

Call = Callable[..., Called]

DENSITY = ("dataset=moons", "loss=nll", "model=gaussian")
EM = ("optimizer=em", "trainer.batch_size=null", "trainer.steps=1", "tracking.enabled=false")

PIXELS = ("model.channels=2", "model.blocks=1")


def built(*overrides: str) -> Built:
    return build(compose.config([*DENSITY, *overrides]))


def test_a_run_of_a_density_has_its_metrics_and_no_perplexity(call: Call) -> None:
    assert call("train", *DENSITY, *EM, "trainer.figures=false").code == 0
    summary = all_runs()[0].summary()
    names = ("loss", "nll", "bits_per_dimension")
    assert {*summary.metrics} == {f"{split}/{name}" for split in ("train", "val", "test") for name in names}
    assert summary.metrics["val/loss"] == summary.metrics["val/nll"]
    spec: Any = summary.spec
    assert (spec["task"], spec["input_shape"], spec["classes"]) == ("density", [2], None)


def test_densities_in_two_units_are_not_comparable() -> None:
    plain, normalised = built("dataset.normalise=false"), built()
    for name in ("loss", "nll", "bits_per_dimension"):
        assert plain.quantities[name]["unit"] != normalised.quantities[name]["unit"]
        assert plain.quantities[name]["higher_is_better"] is False
    assert (
        plain.quantities["nll"]["unit"]
        != built("loss=cross_entropy", "model=mlp", "+metric=nll").quantities["nll"]["unit"]
    )
    assert plain.quantities == built("dataset.normalise=false", "model=gaussian_mixture", "seed=1").quantities


@pytest.mark.parametrize("loss", ["cross_entropy", "nll"])
def test_the_loss_decides_the_task(loss: str) -> None:
    spec = built(f"loss={loss}", "model=linear" if loss == "cross_entropy" else "model=gaussian").data.spec
    assert spec.task == ("density" if loss == "nll" else "classification")


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=gaussian_mixture", *EM[:2], "trainer.steps=12"),
        ("model=realnvp", "model.couplings=2", "model.width=8", "optimizer=adam", "trainer.steps=12"),
        ("dataset=digits", "dataset.binarise=stochastic", "model=autoregressive_pixels", *PIXELS, "trainer.steps=12"),
    ],
    ids=["em", "network", "pixels"],
)
def test_a_density_resumed_at_any_step_is_bit_equal(overrides: tuple[str, ...]) -> None:
    every = ("trainer.checkpoint_every=1", "trainer.evaluate_every=5", "trainer.log_every=3")

    def fresh() -> loop.Training:
        return built(*overrides, *every).training

    whole = Notes()
    loop.train(fresh(), State(), whole)
    for step in (1, 7):
        run, notes = fresh(), Notes()
        state = loop.restore(run, cloned(whole.saved[step]))
        run.best = cloned(whole.best[step])
        loop.train(run, state, notes)
        assert notes.points == [point for point in whole.points if point[0] > step]
        assert same(notes.saved[12], whole.saved[12])
