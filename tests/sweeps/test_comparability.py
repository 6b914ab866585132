"""What a sweep ranks: values of one direction, one unit and the same samples; repetitions are counted once."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlrun.storage.jobs.job import Job
from dlrun.storage.jobs.strata import find_strata
from dlrun.storage.lookup import all_sweeps
from dlrun.storage.manifest import read
from dlrun.storage.sweep_summary import SweepSummary
from tests.facts import refuses, says

QUICK = ("tracking.enabled=false", "trainer.threads=1", "trainer.figures=false")
MOONS = ("dataset=moons", "model=linear", "trainer.steps=4", *QUICK)

SHARE = """
def share(model, batch):
    return (model(batch.x).argmax(1) == batch.y).double().sum(), len(batch.x)
"""


@pytest.fixture
def share(here: Path) -> Path:
    """A metric of the user's, of which nobody says which values are better."""
    (here / "shares.py").write_text(SHARE)
    (here / "conf" / "metric").mkdir(parents=True)
    (here / "conf" / "metric" / "share.yaml").write_text("# @package metrics.share\n_target_: shares.share\n")
    return here


def test_a_direction_that_nobody_declared_is_asked_for(share: Path, call) -> None:
    asked = ("train", "+metric=share", "evaluation.monitor=val/share", *MOONS)
    refuses(call(*asked), "val/share", "evaluation.higher_is_better=true", "shares.share")
    assert call(*asked, "evaluation.higher_is_better=true").code == 0
    refuses(call("train", *MOONS, "evaluation.higher_is_better=true"), "lower values of val/error")
    # dlrun's own metric says it under every name
    own = ("+metrics.mine._target_=dlrun.metrics.accuracy", "evaluation.monitor=val/mine")
    assert call("train", *MOONS, *own).code == 0
    refuses(call("runs", "--sort", "best"), "val/mine, val/share", "--metric")
    assert call("runs", "--sort", "best", "--metric", "val/accuracy").code == 0


def test_equal_jobs_are_one(here: Path, call) -> None:
    done = call("train", "-m", *MOONS, "optimizer.lr=0.01,0.010", "seed=0,0,1", "evaluation.test=never")
    assert done.code == 0
    says(done.out, "equal others")
    (sweep,) = all_sweeps()
    assert sorted(job.seed for job in read(sweep).jobs) == [0, 1]


def test_splits_are_repetitions(here: Path, call) -> None:
    done = call("train", "-m", *MOONS, "dataset.split_seed=0,1,2", "sweep.figures=false")
    assert done.code == 0
    (sweep,) = all_sweeps()
    chosen = sweep.summary().selected
    assert chosen
    assert len(chosen["jobs"]) == 3
    says(done.out, "Splits (dataset.split_seed) are repetitions")


def test_a_sweep_over_data_sets_selects_and_tests_within_each(here: Path, call) -> None:
    done = call("train", "-m", "dataset=moons,digits", *MOONS[1:], "optimizer.lr=0.0001,0.1", "seed=0,1")
    assert done.code == 0
    (sweep,) = all_sweeps()
    summary = sweep.summary()
    assert summary.selected is None
    assert {stratum["label"] for stratum in summary.strata} == {"dataset=moons", "dataset=digits"}
    # the two seeds of each selected configuration, and no other run
    assert summary.test_reads == 4
    assert [len(chosen["jobs"]) for chosen in summary.selections] == [2, 2]
    says((sweep.report / "report.md").read_text(), "Data sets", "dataset=moons", "dataset=digits")
    assert (sweep.report / "figures" / "dataset-moons-ranking.png").exists()
    assert call("resume", sweep.id).code == 0
    assert sweep.summary().test_reads == 4
    compared = call("compare", sweep.id)
    says(compared.out, "dataset=moons:", "dataset=digits:", "`optimizer.lr=0.0001` is worse than `optimizer.lr=0.1`")


def test_losses_of_other_arguments_cannot_rank(here: Path, call) -> None:
    smoothed = ("train", "-m", *MOONS, "loss.label_smoothing=0,0.1", "evaluation.test=never", "sweep.figures=false")
    refuses(call(*smoothed, "evaluation.monitor=val/loss"), "val/loss", "evaluation.monitor=val/error")
    assert not all_sweeps()
    assert call(*smoothed).code == 0, "by the error they can"


def test_a_metric_that_can_rank_is_advised(here: Path, call) -> None:
    # each job has a monitor of its own; the losses are not one quantity, the error is
    monitors = "evaluation.monitor=val/loss,val/accuracy"
    refuses(call("train", "-m", *MOONS, monitors, "loss.label_smoothing=0,0.1"), "Type evaluation.monitor=val/error")


def test_a_direction_that_differs_among_jobs_is_refused(share: Path, call) -> None:
    asked = ("+metric=share", "evaluation.monitor=val/share", "+evaluation.higher_is_better=true,false")
    refuses(call("train", "-m", *MOONS, *asked), "evaluation.higher_is_better", "val/share")


def test_the_validation_error_selects_by_default(here: Path, call) -> None:
    assert call("train", "-m", *MOONS, "optimizer.lr=0.01,0.1", "evaluation.test=never").code == 0
    (sweep,) = all_sweeps()
    assert (read(sweep).monitor, read(sweep).higher_is_better) == ("val/error", False)


def job(n: int, validation: str, *overrides: str) -> Job:
    return Job(n, overrides, {"seed": 0}, f"identity{n}", f"group{n}", validation=validation)


def test_every_group_is_in_one_stratum_though_no_value_tells_two_apart() -> None:
    # two ways to write one size, in each of two data sets
    jobs = [
        job(0, "a", "dataset=digits", "n=180"),
        job(1, "a", "dataset=digits", "n=0.1"),
        job(2, "b", "dataset=digits", "n=360"),
        job(3, "b", "dataset=digits", "n=0.2"),
        job(4, "c", "dataset=moons", "n=0.1"),
    ]
    found = find_strata(jobs)
    assert len(found) == 3
    assert sorted(group for groups in found.values() for group in groups) == [f"group{n}" for n in range(5)]


def test_a_selection_is_found_though_its_data_set_has_another_label_now() -> None:
    summary = SweepSummary({"strata": [{"label": "dataset=moons lr=0.1", "selected": {"group": "g", "label": "x"}}]})
    assert (summary.of_stratum({"g", "h"}).selected or {})["label"] == "x"
    assert summary.of_stratum({"h"}).selected is None
