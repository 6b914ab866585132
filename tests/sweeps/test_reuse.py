"""Why a job is reused, and what differs where it is not; sweeps that an older dlrun began."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dlrun.storage import manifest, sources
from dlrun.storage.lookup import all_sweeps
from dlrun.storage.results import results
from dlrun.storage.rundir import REUSED
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.jobs.reuse import find_finished
from tests.conftest import Called
from tests.facts import refuses, says
from tests.made_sweeps import made_sweep
from tests.summaries import summarise

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


def test_a_reused_run_counts_while_it_has_the_job_s_identity(tmp_path: Path) -> None:
    first, second = reusing(tmp_path)
    assert [result.reused for result in results(second)] == [True, False]
    # resumed with other settings: another run
    summarise(first.job(0), identity="f" * 64)
    (lost, _) = results(second)
    assert (lost.status, lost.reused) == ("missing", False)
    says(lost.summary.error or "", "is another one now")
    assert find_finished(manifest.read(second).jobs, [(first, manifest.read(first))]) == {}
    shutil.rmtree(first.path)
    says(results(second)[0].summary.error or "", f"{first.path.name}/0, is gone")


def test_a_run_of_an_older_dlrun_without_an_identity_is_reused(tmp_path: Path) -> None:
    first, second = reusing(tmp_path)
    summarise(first.job(0), identity=None)
    assert results(second)[0].reused


@pytest.mark.parametrize("written", ["relative", "absolute"])
def test_reused_runs_are_found_in_a_moved_outputs_folder(tmp_path: Path, written: str) -> None:
    first, second = reusing(tmp_path)
    note = second.job(0).path / REUSED
    assert json.loads(note.read_text())["run"] == "sweeps/2026-01-01/101112-made-aaaa/0"
    if written == "absolute":  # as an older dlrun writes it
        note.write_text(json.dumps({"run": str(first.job(0).path)}))
    # another outputs folder at the old place, as where one is copied
    (tmp_path / "outputs").rename(tmp_path / "moved")
    moved = SweepDir(tmp_path / "moved/sweeps/2026-01-01/101113-made-bbbb")
    assert [result.reused for result in results(moved)] == [True, False]
    assert results(moved)[0].run.path.is_relative_to(tmp_path / "moved")
    # found by its id
    (tmp_path / "moved/sweeps/2026-01-01/101112-made-aaaa").rename(tmp_path / "moved/sweeps/101112-better-aaaa")
    (tmp_path / "moved/sweeps/2026-02-02").mkdir()
    (tmp_path / "moved/sweeps/101112-better-aaaa").rename(tmp_path / "moved/sweeps/2026-02-02/101112-better-aaaa")
    assert results(moved)[0].reused


def test_a_reused_run_outside_of_the_outputs_folder_is_named_whole(tmp_path: Path) -> None:
    first = made_sweep(tmp_path / "elsewhere", {"seed": [0]}, lambda job: {"val/error": 0.1})
    second = made_sweep(tmp_path / "outputs/sweeps/2026-01-01/101113-made-bbbb", {"seed": [0]}, lambda job: {})
    summarise(first.job(0), identity=manifest.read(first).jobs[0].identity)
    second.reuse(0, first.job(0))
    assert results(second)[0].run == first.job(0)


@pytest.mark.parametrize("named", ["absolute", "../elsewhere/0", "", "a\0b", "x" * 5000])
def test_a_note_of_a_reused_run_names_no_other_folder_of_the_machine(tmp_path: Path, named: str) -> None:
    other = made_sweep(tmp_path / "elsewhere", {"seed": [0]}, lambda job: {"val/error": 0.1}).job(0)
    sweep = made_sweep(tmp_path / "outputs/sweeps/2026-01-01/101113-made-bbbb", {"seed": [0]}, lambda job: {})
    note = sweep.job(0).path / REUSED
    note.parent.mkdir()
    note.write_text(json.dumps({"run": str(other.path) if named == "absolute" else named}))
    # it has no identity by which it could be the job's
    (result,) = results(sweep)
    assert (result.status, result.run) == ("missing", sweep.job(0))
    summarise(other, identity="f" * 64)
    assert results(sweep)[0].status == "missing"


def test_a_job_whose_reused_run_has_changed_is_run(call: Call) -> None:
    first = train(call, "seed=0,1")
    second = train(call, "seed=0,1,2")
    assert [result.reused for result in results(second)] == [True, True, False]
    assert call("resume", f"{first.id}/0", "trainer.steps=20").code == 0
    assert call("runs", f"{first.id}/1", "--delete", "--yes").code == 0
    done = call("resume", second.id)
    assert done.code == 0, done.err
    says(done.out, "2 of 3 jobs are run here: job 0", "is another one now", "(and 1 more)")
    found = results(second)
    assert [(result.status, result.reused, result.summary.steps) for result in found] == [("finished", False, 10)] * 3
    assert [result.summary.test_reads for result in found] == [1, 1, 1]


def test_a_damaged_run_hinders_no_reuse_of_another(call: Call) -> None:
    first = train(call, "seed=0,1")
    (first.job(0).path / "summary.json").write_text("")
    done = call("train", "-m", *SHORT, "seed=0,1,2")
    assert done.code == 0, done.err
    says(done.err, str(first.job(0).path / "summary.json"), "damaged")
    (second,) = [sweep for sweep in all_sweeps() if sweep != first]
    assert [result.reused for result in results(second)] == [False, True, False]


def reusing(folder: Path) -> tuple[SweepDir, SweepDir]:
    """Two sweeps in one outputs folder: the first job of the second is that of the first."""
    day = folder / "outputs/sweeps/2026-01-01"
    first = made_sweep(day / "101112-made-aaaa", {"seed": [0]}, lambda job: {"val/error": 0.1})
    second = made_sweep(
        day / "101113-made-bbbb", {"seed": [0, 1]}, lambda job: {"val/error": 0.1} if job["seed"] else {}
    )
    summarise(first.job(0), identity=manifest.read(second).jobs[0].identity)
    second.reuse(0, first.job(0))
    return first, second
