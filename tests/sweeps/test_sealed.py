"""The doors by which test values could choose: each is closed, or opened on request and marked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dlrun.commands.trained.test import _shown_with
from dlrun.report.overview import read_overview
from dlrun.storage.lookup import all_runs, all_sweeps
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
QUICK = ("tracking.enabled=false", "trainer.threads=1", "trainer.figures=false", "sweep.figures=false")
MOONS = ("dataset=moons", "model=linear", "trainer.steps=4", *QUICK)


@pytest.mark.parametrize("test", ["every", "final", "never"])
def test_a_search_without_a_validation_split_is_refused(here: Path, call: Call, test: str) -> None:
    search = ("hydra/sweeper=search", "hydra.sweeper.n_trials=2", "optimizer.lr=interval(0.01,0.1)")
    refuses(
        call("train", "-m", *search, "dataset.validation_size=0", f"evaluation.test={test}", *MOONS),
        "dataset.validation_size",
    )
    assert not all_sweeps()


def test_without_a_validation_split_nothing_is_ranked_by_the_test(call: Call) -> None:
    # the later rate is the better one, on every split
    rates = "optimizer.lr=1e-6,1e-1"
    every = ("dataset.validation_size=0", "evaluation.test=every")
    done = call("train", "-m", rates, "seed=0,1", *every, *MOONS, "trainer.steps=30")
    assert done.code == 0, done.err
    says(done.out, "nothing is ranked", "in the order of the sweep")
    assert "★" not in done.out
    (sweep,) = all_sweeps()
    overview = read_overview(sweep)
    means = [group.spread.mean for group in overview.groups]
    assert [group.label for group in overview.groups] == ["optimizer.lr=1e-06", "optimizer.lr=0.1"]
    assert means[0] > means[1] and not sweep.summary().selected
    refuses(call("compare", sweep.id), "--metric test/error")
    says(call("compare", sweep.id, "--metric", "test/error").out, "select nothing by it")


def test_runs_are_not_ranked_by_the_test(call: Call) -> None:
    call("train", *MOONS)
    refuses(call("runs", "--sort", "best", "--metric", "test/error"), "--sort test/error", "--metric val/loss")
    assert call("runs", "--sort", "test/error").code == 0


def test_a_job_that_was_not_selected_is_not_tested_by_being_resumed(call: Call) -> None:
    assert call("train", "-m", "optimizer.lr=1e-6,1e-1", *MOONS).code == 0
    (sweep,) = all_sweeps()
    for change in ("evaluation.test=every", "evaluation.test=final"):
        refuses(call("resume", f"{sweep.id}/0", "trainer.steps=6", change), f"dlrun test {sweep.id}/0 --force")
    assert call("resume", f"{sweep.id}/0", "trainer.steps=6").code == 0
    assert all(run.summary().test_reads == 0 for run in all_runs() if run.path.name == "0")


@pytest.mark.parametrize(
    "wrong", ["evaluation.monitor=test/error", "trainer.patience=2", "evaluation.monitor=val/loss"]
)
def test_neither_weights_nor_their_number_of_steps_are_chosen_by_the_test(call: Call, wrong: str) -> None:
    refuses(call("train", *MOONS, "dataset.validation_size=0", wrong), "validation")


def test_a_read_on_request_is_counted_for_the_sweep_that_was_asked(here: Path, call: Call) -> None:
    rates = ("train", "-m", "optimizer.lr=1e-1,1e-6", *MOONS)
    assert call(*rates).code == 0
    (first,) = all_sweeps()
    assert call("test", f"{first.id}/1", "--force").code == 0
    # its page at the trackers counts the reads
    assert _shown_with(first.job(1), first.job(1)) == [first]
    # at once, so that the folder's end takes none along
    assert first.summary().test_reads == 2
    # of the same run, though its summary is made anew
    (first.job(1).path / "summary.json").unlink()
    assert call("resume", f"{first.id}/1").code == 0
    assert call("report", first.id).code == 0
    assert first.summary().test_reads == 2
    done = call(*rates, "evaluation.test=final", "hydra.sweep.dir=outputs/sweeps/2026-01-01/000000-a-second")
    says(done.out, "The test split was not read for this sweep. 2 reused runs had read it for another sweep.")
    second = next(sweep for sweep in all_sweeps() if sweep != first)
    refuses(call("test", f"{second.id}/1"), f"{second.id}/1 is a job of a sweep", "--force")
    assert call("test", f"{second.id}/1", "--force").code == 0
    assert _shown_with(first.job(1), second.job(1)) == [second, first]
    says(call("report", second.id).out, "was read 1 time, by 1 run not selected (`optimizer.lr=1e-06`)")
    says(call("report", first.id).out, "Other sweeps read it 1 time, with 1 run of this one.")
    shutil.rmtree(first.job(1).path)
    says(call("report", first.id).out, "read 2 times", "1 time by runs whose folders are gone")
    says(call("report", second.id).out, "was read 1 time, by runs whose folders are gone")
