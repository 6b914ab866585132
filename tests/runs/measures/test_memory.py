"""`trainer.profile=memory`: a table of the ways to keep activations; the run is as it were without."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dlrun.storage.journal import curves
from dlrun.storage.lookup import all_runs
from tests.conftest import Called
from tests.facts import says

Call = Callable[..., Called]
RUN = ("train", "+experiment=digits", "trainer.steps=4", "trainer.figures=false", "tracking.enabled=false")


def test_a_run_measures_each_way_and_trains_as_without(call: Call) -> None:
    given = (*RUN, "model.depth=6", "model.dropout=0.2", "trainer.log_every=1", "trainer.activation_checkpointing=true")
    assert call(*given).code == 0
    done = call(*given, "trainer.profile=memory")
    assert done.code == 0, done.err
    says(done.out, "every block *", "sqrt", "plain", "1.00 ×")
    without, measured = all_runs()
    memory = measured.summary().memory
    assert [*memory] == ["plain", "every block", "sqrt"]
    assert (memory["plain"]["activations"] or 0) > (memory["every block"]["activations"] or 0) > 0
    assert all(each["forward"] >= 0 and each["relative"] >= 0 for each in memory.values())
    points = curves(measured.journal)
    assert points["memory/activations"] == [(0, float(memory["every block"]["activations"] or 0))]
    assert points["train/loss"] == curves(without.journal)["train/loss"]
    assert measured.summary().metrics == without.summary().metrics
    # a job that was not measured does not stand for one that is
    assert measured.summary().identity != without.summary().identity


def test_a_check_shows_it_too(call: Call) -> None:
    done = call("check", "dataset=moons", "model=revnet", "model.depth=3", "trainer.profile=memory")
    assert done.code == 0, done.err
    says(done.out, "reversible *", "every block", "nothing was trained")
    # of a model without blocks the plain way alone
    done = call("check", "dataset=moons", "model=linear", "trainer.profile=memory")
    assert done.code == 0, done.err
    says(done.out, "plain *")
    assert "sqrt" not in done.out


def test_a_way_that_does_not_fit_is_left_out(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def peak_of(step: object, held: object, device: object) -> int:
        if not tried:
            tried.append("plain")
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1_000_000

    tried: list[str] = []
    monkeypatch.setattr("dlrun.runs.measures.memory.peak_of", peak_of)
    done = call("check", "dataset=moons", "model=revnet", "model.depth=3", "trainer.profile=memory")
    assert done.code == 0, done.err
    says(done.out, "reversible *", "1 MB")
    assert "plain" not in done.out
