"""Sweeps over folds: repetitions of one configuration, whose numbers are over the folds and say so."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import fmean

import pytest

from dlrun.storage.jobs.job import Replicate
from dlrun.storage.lookup import all_sweeps
from dlrun.storage.manifest import read
from dlrun.storage.results import results
from tests.facts import says

QUICK = ("tracking.enabled=false", "trainer.threads=1", "trainer.figures=false", "sweep.figures=false")
WINE = ("dataset=wine", "dataset.folds=4", "dataset.fold=range(4)", "trainer.steps=4", *QUICK)


def test_a_repetition_has_a_name() -> None:
    found = [str(each) for each in (Replicate(0), Replicate(0, 3), Replicate(1, fold=4), Replicate(2, 0, 1))]
    assert found == ["0", "0 (split 3)", "1 (fold 4)", "2 (split 0, fold 1)"]


def page() -> str:
    (sweep,) = all_sweeps()
    text = re.sub(r"<[^>]*>", " ", (sweep.report / "report.html").read_text())
    return " ".join(text.split())


def test_a_configuration_is_validated_over_its_folds(here: Path, call) -> None:
    done = call("train", "-m", *WINE)
    assert done.code == 0, done.err
    says(done.out, "folds", "Only the folds vary", "over 4 folds")
    says(page(), "Over 4 folds", "no independent ones", "factor of about 1.5")
    (sweep,) = all_sweeps()
    manifest = read(sweep)
    assert manifest.repetition == "fold" and len(manifest.groups) == 1
    assert {job.replicate for job in manifest.jobs} == {Replicate(0, fold=k) for k in range(4)}
    summaries = [result.summary for result in results(sweep, manifest)]
    # every sample that is no test is validated on once, and the test is the same for all
    assert sum(s.data["validation"] for s in summaries) == summaries[0].data["train"] + summaries[0].data["validation"]
    assert len({s.data["test_fingerprint"] for s in summaries}) == 1
    assert len({s.data["validation_fingerprint"] for s in summaries}) == 4
    mean = fmean(s.metrics["val/error"] for s in summaries)
    says(done.out, f"{mean:.2f}"[:4])


def test_configurations_are_compared_on_the_same_folds(here: Path, call) -> None:
    done = call("train", "-m", *WINE, "optimizer.lr=1e-5,0.01")
    assert done.code == 0, done.err
    (sweep,) = all_sweeps()
    chosen = sweep.summary().selected
    assert chosen and len(chosen["jobs"]) == 4 and chosen["label"] == "optimizer.lr=0.01"
    says(done.out, "over the folds", "(4 folds)")
    assert [*read(sweep).strata] == [""]


@pytest.mark.slow
def test_folds_and_seeds_are_repetitions(here: Path, call) -> None:
    done = call("train", "-m", *WINE, "seed=0,1")
    assert done.code == 0, done.err
    (sweep,) = all_sweeps()
    manifest = read(sweep)
    assert len(manifest.groups) == 1 and len({job.replicate for job in manifest.jobs}) == 8
    says(done.out, "repetitions")
