"""Why a job is reused, and what differs where it is not; sweeps that an older dlrun began."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest

from dlrun.storage import manifest, sources
from dlrun.storage.lookup import all_sweeps
from dlrun.storage.results import results
from dlrun.storage.sweepdir import SweepDir
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
SHORT = ("model=linear", "trainer.steps=10", "tracking.enabled=false", "trainer.threads=1", "trainer.figures=false")


def train(call: Call, *overrides: str) -> SweepDir:
    before = all_sweeps()
    done = call("train", "-m", *SHORT, *overrides)
    assert done.code == 0, done.err
    # by their folders' names, sweeps of one second have no order
    (new,) = [sweep for sweep in all_sweeps() if sweep not in before]
    return new


def as_of_an_older_dlrun(sweep: SweepDir) -> None:
    """Take from a sweep's folder what older ones lack: the parts of the identities, and their hashes."""
    content = json.loads(sweep.manifest.read_text())
    for job in content["jobs"]:
        del job["parts"]
        job["identity"] = "0" * 64
    content["basis"]["sources"] = "1" * 64
    del content["digest"]
    sweep.manifest.write_text(json.dumps(content))
    for file in sweep.path.glob("[0-9]*/summary.json"):
        summary = json.loads(file.read_text())
        del summary["identity_parts"]
        file.write_text(json.dumps(summary))


def test_a_check_says_what_another_sweep_has_finished(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = train(call, "seed=0,1")
    again = call("check", "-m", *SHORT, "seed=0,1,2")
    says(again.out, "2 of 3 are finished", f"sweep {sweep.id}")
    monkeypatch.setattr(sources, "sources", lambda: "0" * 64)
    edited = call("check", "-m", *SHORT, "seed=0,1,2")
    assert "are finished in" not in edited.out
    says(edited.out, f"2 of 3 are in sweep {sweep.id}", "dlrun's sources")


def test_the_parts_of_an_identity_are_those_of_the_run(call: Call) -> None:
    sweep = train(call, "seed=0,1")
    for job, result in zip(manifest.read(sweep).jobs, results(sweep), strict=True):
        assert result.summary.identity_parts == job.parts
        assert job.parts["data"] == result.summary.data["fingerprint"]
    assert "differing" in (sweep.report / "report.md").read_text()


def test_a_comparison_names_what_differs(call: Call) -> None:
    one, other = train(call, "seed=0,1", "optimizer.lr=0.1"), train(call, "seed=0,1", "optimizer.lr=0.01")
    done = call("compare", one.id, other.id)
    assert done.code == 0, done.err
    says(done.out, "optimizer.lr: 0.1, 0.01")
    assert "sources" not in done.out
    with other.job(0).edit_summary() as summary:
        summary.identity_parts = {**summary.identity_parts, "sources": "0" * 64}
    says(call("compare", one.id, other.id).out, "dlrun's sources")


def test_a_sweep_of_an_older_dlrun_goes_on(call: Call) -> None:
    sweep = train(call, "seed=0,1")
    as_of_an_older_dlrun(sweep)
    shutil.rmtree(sweep.job(1).path)
    with sweep.edit_summary() as summary:
        summary.status = "killed"
    done = call("resume", sweep.id)
    assert done.code == 0, done.err
    says(done.out, "older dlrun")
    assert [result.status for result in results(sweep)] == ["finished"] * 2
    assert call("report", sweep.id).code == 0


def test_a_sweep_of_an_older_dlrun_is_refused_with_other_data(call: Call) -> None:
    sweep = train(call, "seed=0,1")
    as_of_an_older_dlrun(sweep)
    content = json.loads(sweep.manifest.read_text())
    content["basis"]["data"] = {"f" * 36: "dlrun.datasets.digits.digits"}
    sweep.manifest.write_text(json.dumps(content))
    shutil.rmtree(sweep.job(1).path)
    with sweep.edit_summary() as summary:
        summary.status = "killed"
    refused = call("resume", sweep.id)
    refuses(refused, f"data.{'f' * 36}")
