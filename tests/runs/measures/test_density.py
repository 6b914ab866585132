"""A density's run: its loss takes the data set's targets away, and its numbers are of inputs in their own unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dlrun.config import compose
from dlrun.runs.build import Built, build
from dlrun.storage.lookup import all_runs
from tests.conftest import Called

Call = Callable[..., Called]

DENSITY = ("dataset=moons", "loss=nll", "model=gaussian")
EM = ("optimizer=em", "trainer.batch_size=null", "trainer.steps=1", "tracking.enabled=false")


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
