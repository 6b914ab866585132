"""When a sweep selects, what stays selected, and whose reads of the test split are counted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlrun.errors import UserError
from dlrun.report import selected, sentences
from dlrun.report.claims import check
from dlrun.report.overview import read_overview
from dlrun.storage import manifest
from dlrun.storage.journal import open_journal
from dlrun.storage.read_counts import count_reads, note_reads
from dlrun.storage.results import results
from dlrun.storage.sweep_summary import Selection
from dlrun.storage.sweepdir import SweepDir
from dlrun.studies.study import Claim
from dlrun.sweeps import decision as decisions
from dlrun.sweeps.decision import Decision, SweepState, is_due, read_state
from dlrun.tracking.content.sweep_description import describe, tags
from tests.facts import says
from tests.made_sweeps import group_of, made_sweep
from tests.summaries import summarise

LR = [0.1, 0.3, 1.0]
GRID = {"lr": LR, "seed": [0, 1]}


class Study:
    def claims(self, results: Any) -> list[Claim]:
        return [Claim("it holds", "held", "because")]


def decide(state: SweepState) -> Decision:
    """The decision of a sweep over one data set."""
    (only,) = decisions.decide(state).values()
    return only


def decide_on_request(state: SweepState, *, again: bool = False) -> Decision:
    (only,) = decisions.decide_on_request(state, again=again).values()
    return only


def sweep_of(folder: Path, **of: dict[str, Any]) -> SweepDir:
    """Three rates by two seeds, the first the best; `of` gives results of jobs by `lr_seed`."""
    return made_sweep(folder, GRID, lambda job: of.get(f"lr{job['lr']}_{job['seed']}", {"val/error": job["lr"]}))


def write(sweep: SweepDir, decision: Decision) -> Selection:
    assert decision.selection
    summarise(sweep, selected=decision.selection, selected_now=decision.now)
    return decision.selection


def read_test(sweep: SweepDir, *jobs: int, reader: str | None = None) -> None:
    for n in jobs:
        with sweep.job(n).edit_summary() as summary:
            summary.test_reads += 1
            summary.metrics = {**summary.metrics, "test/error": 0.5}
            if reader:
                summary.test_reads_for = {reader: 1}


def labels(decision: Decision) -> list[str | None]:
    return [each.get("label") if each else None for each in (decision.selection, decision.now)]


@pytest.mark.parametrize("status", ["killed", "missing", "running", "failed", "pruned"])
def test_nothing_is_selected_before_all_jobs_have_ended(tmp_path: Path, status: str) -> None:
    sweep = sweep_of(tmp_path / "s", **{"lr1.0_1": {} if status == "missing" else {"status": status}})
    with sweep.job(5).hold() if status == "running" else sweep.hold():
        decision = decide(read_state(sweep))
    assert labels(decision) == (["lr=0.1", None] if status in ("failed", "pruned") else [None, None])


def test_a_search_selects_when_it_has_its_trials(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "s")
    summarise(sweep, search={"trials": 3, "total": 5})
    assert decide(read_state(sweep)).selection is None
    says(selected.selection(read_overview(sweep)), "2 trials are missing: nothing is selected")
    summarise(sweep, search={"trials": 5, "total": 5})
    assert decide(read_state(sweep)).selection


def test_a_selection_is_final_once_it_was_tested(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "s")
    assert is_due(sweep)
    write(sweep, decide(read_state(sweep)))
    assert is_due(sweep), "its test is due"
    # not read yet: a better configuration takes its place
    with sweep.job(4).edit_summary() as four, sweep.job(5).edit_summary() as five:
        four.metrics = five.metrics = {"val/error": 0.0}
    assert labels(decide(read_state(sweep))) == ["lr=1.0", None]
    read_test(sweep, 0, 1)
    decision = decide(read_state(sweep))
    assert labels(decision) == ["lr=0.1", "lr=1.0"]
    assert not is_due(sweep)
    write(sweep, decision)
    text = selected.selection(read_overview(sweep))
    says(text, "`lr=0.1`", "final", "`lr=1.0` would be selected (val/error 0 instead of 0.1)", "--select --force")
    assert selected.selection_bias(read_overview(sweep)) == ""
    # a job that is killed now changes nothing
    summarise(sweep.job(5), status="killed")
    assert labels(decide(read_state(sweep))) == ["lr=0.1", None]


def test_where_every_run_reads_the_test_split_nothing_is_final(tmp_path: Path) -> None:
    sweep = made_sweep(
        tmp_path / "s", GRID, lambda job: {"val/error": job["lr"], "test/error": 0.5}, test="every",
        summary={"selected": {"group": group_of(lr=1.0), "label": "lr=1.0", "jobs": [4, 5]}},
    )  # fmt: skip
    assert labels(decide(read_state(sweep))) == ["lr=0.1", None]


def test_a_selection_on_request_is_marked(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "s", **{"lr0.1_1": {"status": "killed"}})
    state = read_state(sweep)
    assert tags(sweep, state.manifest, state.results)["dlrun.selected"] == "nothing yet: 1 of 6 jobs is killed"
    chosen = write(sweep, decide_on_request(read_state(sweep)))
    assert (chosen["label"], chosen["without"], chosen["of"]) == ("lr=0.3", {"killed": 1}, 6)
    state = read_state(sweep)
    words = "on request, while 1 of 6 jobs was killed"
    says(selected.selection(read_overview(sweep)), words)
    says(describe(sweep, state.manifest, state.results), f"selected: **lr=0.3**, val/error 0.3 in the mean ({words})")
    assert tags(sweep, state.manifest, state.results)["dlrun.selected.mark"] == words
    # untested, it is no more than a look: the resumed sweep selects by itself
    summarise(sweep.job(1), status="finished", metrics={"val/error": 0.1})
    found = write(sweep, decide(read_state(sweep)))
    assert (found["label"], found.get("without")) == ("lr=0.1", None)
    assert tags(sweep, state.manifest, state.results)["dlrun.selected.mark"] == "by the rule"


def test_another_selection_after_the_test_needs_consent_and_is_counted(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "s", **{"lr0.1_1": {"status": "killed"}})
    write(sweep, decide_on_request(read_state(sweep)))
    read_test(sweep, 2, 3)
    summarise(sweep.job(1), status="finished", metrics={"val/error": 0.1})
    with pytest.raises(UserError) as refused:
        decide_on_request(read_state(sweep))
    says(str(refused.value), "`lr=0.3`", "`lr=0.1` would be selected", "--force")
    chosen = write(sweep, decide_on_request(read_state(sweep), again=True))
    assert [each["label"] for each in chosen["earlier"]] == ["lr=0.3"]
    assert decide(read_state(sweep)).selection == chosen, "final already, though it is not tested yet"
    read_test(sweep, 0, 1)
    overview = read_overview(sweep)
    says(selected.selection(overview), "again, after the test split had been read for `lr=0.3`")
    says(
        selected.describe_reads(overview),
        "read 4 times",
        "2 times by 2 runs not selected (`lr=0.3`)",
        "2 of these reads came before",
    )
    assert "test numbers are not" not in selected.selection_bias(overview)


def test_of_seeds_alone_the_finished_ones_can_be_tested(tmp_path: Path) -> None:
    sweep = made_sweep(
        tmp_path / "s", {"seed": [0, 1, 2]}, lambda job: {"status": "killed"} if job["seed"] else {"a": 1}
    )
    assert decide(read_state(sweep)).selection is None
    assert decide_on_request(read_state(sweep)).selection == {
        "group": group_of(), "label": "made", "monitor": "val/error", "mean": None, "jobs": [0], "reads_before": 0,
        "without": {"killed": 2}, "of": 3,
    }  # fmt: skip
    # seeds that finish later are tested too: there is no choice
    write(sweep, decide_on_request(read_state(sweep)))
    read_test(sweep, 0)
    summarise(sweep.job(1), status="finished", metrics={"a": 1}, data={"test": 9})
    assert decide(read_state(sweep)).selection == sweep.summary().selected
    summarise(sweep.job(2), status="failed")
    found = decide_on_request(read_state(sweep))
    assert found.selection and found.selection["jobs"] == [0, 1]
    assert [result.job.n for result in read_state(sweep).untested(found.selection)] == [1]
    for n in (0, 1, 2):
        summarise(sweep.job(n), status="killed")
    with pytest.raises(UserError, match="nothing can be selected"):
        decide_on_request(read_state(sweep))


def test_reads_are_told_as_they_were_counted(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "s")
    assert selected.describe_reads(read_overview(sweep)) == "The test split was not read."
    write(sweep, decide(read_state(sweep)))
    read_test(sweep, 0, 1, 0)
    text = selected.describe_reads(read_overview(sweep))
    says(text, "read 3 times, by 2 runs of the selected configuration and by no other", "None of these reads")
    # an old sweep, which selected twice
    summarise(sweep, selected={"group": group_of(lr=0.1), "label": "lr=0.1", "jobs": [0, 1]})
    read_test(sweep, 3)
    text = selected.describe_reads(read_overview(sweep))
    says(text, "read 4 times: 3 times by 2 runs of the selected configuration, 1 time by 1 run not selected (`lr=0.3`)")
    assert "before the selection" not in text
    # a folder that is gone takes no read with it
    summarise(sweep, test_reads=9)
    says(selected.describe_reads(read_overview(sweep)), "read 9 times", "5 times by runs whose folders are gone")


def test_reads_for_another_sweep_are_told_apart(tmp_path: Path) -> None:
    first, second = sweep_of(tmp_path / "a"), sweep_of(tmp_path / "b")
    for job in manifest.read(first).jobs[:2]:
        # outside of an outputs folder only the identity says that it is the same run
        summarise(first.job(job.n), identity=job.identity)
        second.reuse(job.n, first.job(job.n))
    write(second, decide(read_state(second)))
    read_test(first, 0, 1, reader=second.id)
    says(
        selected.describe_reads(read_overview(second)),
        "read 2 times, by 2 runs of the selected configuration and by no other",
    )
    says(selected.describe_reads(read_overview(first)), "Other sweeps read it 2 times, with 2 runs of this one.")
    assert "not selected" not in selected.describe_reads(read_overview(first))


def test_a_read_is_known_though_its_run_is_gone(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path / "s", {"dataset": ["a", "b"], "lr": [0.1, 0.3]}, lambda job: {"val/error": job["lr"]})
    made = manifest.read(sweep)
    replace(made, jobs=tuple(replace(job, validation=job.config["dataset"]) for job in made.jobs)).write(sweep)
    found = decisions.decide(read_state(sweep))
    summarise(sweep, strata=[{"label": label, "selected": each.selection} for label, each in found.items()])
    for n in range(4):
        summarise(sweep.job(n), started=1e9)
    read_test(sweep, 0, 2, 1)
    note_reads(sweep)
    # the selected one of `a` is run and read again, the other one's folder is gone
    summarise(sweep.job(0), started=2e9)
    shutil.move(sweep.job(1).path, tmp_path / "away")
    note_reads(sweep)
    a, b = read_overview(sweep).strata
    says(
        selected.describe_reads(a),
        "read 3 times: 1 time by 1 run of the selected configuration, 2 times by runs whose folders are gone",
    )
    assert "test numbers are not" not in selected.selection_bias(a)
    says(selected.describe_reads(b), "read 1 time, by 1 run of the selected configuration and by no other")
    assert sweep.summary().test_reads == 4
    # a folder that is put back has read no more than before
    shutil.move(tmp_path / "away", sweep.job(1).path)
    note_reads(sweep)
    assert sweep.summary().test_reads == 4


def test_reads_that_an_older_dlrun_counted_stay(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "s")
    read_test(sweep, 0, 1)
    summarise(sweep, test_reads=5)
    note_reads(sweep)
    shutil.rmtree(sweep.job(0).path)
    read_test(sweep, 1)
    note_reads(sweep)
    assert sweep.summary().test_reads == 6
    reads = count_reads(sweep.id, results(sweep), sweep.summary())
    assert (reads.total, reads.gone) == (6, 4)


def test_no_claim_is_decided_while_jobs_are_killed(tmp_path: Path) -> None:
    sweep = made_sweep(
        tmp_path / "s", GRID, lambda job: {"val/error": job["lr"]} if job["seed"] else {"status": "killed"},
        study={"_target_": f"{__name__}.Study"},
    )  # fmt: skip
    (claim,) = check(read_overview(sweep))
    assert claim.verdict == "undecided"
    says(claim.evidence, "3 of 6 jobs are killed", "because")
    summarise(sweep, selected={"group": group_of(lr=0.1), "without": {"killed": 3}, "of": 6})
    (claim,) = check(read_overview(sweep))
    assert claim.verdict == "held"


def test_a_job_resumed_with_other_settings_is_not_selected_nor_tested(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "s")
    made = manifest.read(sweep)
    replace(made, jobs=tuple(replace(job, parts={"config": "c"}) for job in made.jobs)).write(sweep)
    write(sweep, decide(read_state(sweep)))
    read_test(sweep, 0, 1)
    # resumed, a job has lost its test metrics
    summarise(sweep.job(0), identity="f" * 64, metrics={"val/error": 0.0})
    assert not is_due(sweep)
    summarise(sweep, selected=None)
    assert labels(decide(read_state(sweep))) == ["lr=0.3", None]
    says(sentences.job_counts(read_overview(sweep)), "with other settings or code", "not selected: 0.")


def test_a_selection_that_the_summary_has_lost_is_found_again(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "s")
    read_test(sweep, 2, 3, 4)
    with open_journal(sweep.job(4).journal) as one:
        one.event("test_read", reads=1)  # by hand
    assert labels(decide(read_state(sweep))) == ["lr=0.1", None]
    for n in (2, 3):
        with open_journal(sweep.job(n).journal) as one:
            one.event("test_read", reads=1, sweep=sweep.id)
    decision = decide(read_state(sweep))
    assert labels(decision) == ["lr=0.3", "lr=0.1"]
    assert decision.selection and decision.selection["jobs"] == [2, 3]
