"""A whole sweep: checked, run, selected among, tested once, resumed after any death, reused, deleted."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dlrun.storage import manifest
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.lookup import all_sweeps
from dlrun.storage.results import Result, results
from dlrun.storage.sweepdir import SweepDir
from tests.facts import refuses, says
from tests.processes import Process

Call = Callable[..., Any]

ODD = """
import os, signal, sys, time
import torch
from torch import nn


class Odd(nn.Module):
    def __init__(self, way: str = "well"):
        super().__init__()
        self.way, self.steps, self.linear = way, 0, nn.Linear(64, 10)

    def forward(self, x):
        self.steps += self.training and torch.is_grad_enabled()
        y = self.linear(x.flatten(1))
        if self.way == "slow" and self.steps > 3:
            time.sleep(0.02)
        if self.steps < 8 or os.path.exists("mended"):
            return y
        if self.way == "raises":
            raise ValueError("an accident")
        if self.way == "exits":
            sys.exit(3)
        if self.way == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        return y * float("nan") if self.way == "diverges" else y
"""
QUICK = ("tracking.enabled=false", "trainer.threads=1", "trainer.figures=false", "trainer.evaluate_every=10")
SHORT = ("model=linear", "trainer.steps=10", *QUICK)


@pytest.fixture
def odd(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model that fails in the way of `model.way`."""
    monkeypatch.delitem(sys.modules, "odd", raising=False)
    importlib.invalidate_caches()
    (here / "odd.py").write_text(ODD)
    (here / "conf/model").mkdir(parents=True)
    (here / "conf/model/odd.yaml").write_text("_target_: odd.Odd\nway: well\n")
    return here


def only() -> SweepDir:
    (sweep,) = all_sweeps()
    return sweep


def by_way(sweep: SweepDir) -> dict[str, Result]:
    return {result.swept["model.way"] + result.swept.get("seed", ""): result for result in results(sweep)}


def test_a_sweep_chooses_by_validation_and_tests_that_alone(call: Call, here: Path) -> None:
    sweeping = ("train", "-m", *SHORT, "optimizer.lr=1e-2,1e-9", "seed=range(2)")
    done = call(*sweeping)
    assert done.code == 0, done.err
    sweep = only()
    found, summary = results(sweep), sweep.summary()
    assert [r.status for r in found] == ["finished"] * 4
    assert [r.job.group_label for r in found] == ["optimizer.lr=0.01"] * 2 + ["optimizer.lr=1e-09"] * 2
    assert (summary.status, summary.finished, summary.test_reads) == ("finished", 4, 2)
    assert summary.selected["jobs"] == [0, 1]
    assert summary.selected["mean"] == pytest.approx(sum(r.metrics["val/error"] for r in found[:2]) / 2)
    assert [r.summary.test_reads for r in found] == [1, 1, 0, 0]
    assert ["test/error" in r.metrics for r in found] == [True, True, False, False]
    assert (sweep.report / "report.md").exists()
    assert [r.summary.identity for r in found] == [job.identity for job in manifest.read(sweep).jobs]

    # the same again: nothing to do
    again = call(*sweeping)
    assert again.code == 0
    says(again.out, "all 4 jobs have ended", f"{manifest.read(sweep).command} sweep.fresh=true")
    assert all_sweeps() == [sweep]

    # tested jobs may be tested, others may not
    shown = call("test", sweep.id).out
    says(shown, f"{found[0].metrics['test/error']:.6g}", "read 2 times, by 2 runs of the selected")
    refused = call("test", f"{sweep.id}/2")
    refuses(refused, "sealed")
    assert call("test", f"{sweep.id}/0").code == 0
    assert call("test", f"{sweep.id}/2", "--split", "validation").code == 0

    # another sweep that has a group in common reuses it, and adds no read of the test split
    other = call("train", "-m", *SHORT, "optimizer.lr=1e-2,1e-8", "seed=range(2)")
    says(other.out, "2 of 4 jobs are reused")
    new = next(s for s in all_sweeps() if s != sweep)
    assert [r.reused for r in results(new)] == [True, True, False, False]
    assert new.summary().test_reads == 0
    assert results(new)[1].summary.test_reads == 1
    says(call("runs", f"{new.id}/1").out, f"{sweep.id}/1")

    listed = call("runs", "--sweeps").out
    says(listed, sweep.id, "optimizer.lr=0.01")
    assert len(call("runs", sweep.id).out.splitlines()) == 5
    assert call("runs", sweep.id, "--delete", "--yes").code == 0
    assert all_sweeps() == [new]
    assert [r.status for r in results(new)][:2] == ["missing", "missing"]


@pytest.mark.parametrize("launcher", ["local", "batched"])
def test_a_password_of_the_environment_does_not_land_in_a_sweeps_folder(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    monkeypatch.setenv("API_TOKEN", "hunter2hunter2")
    monkeypatch.setenv("DLRUN_TRUSTED", "")
    tags = ("+tracking.tags.a=${oc.env:API_TOKEN}", r'+tracking.tags.b="\${x}"')
    sweeping = ("train", "-m", *SHORT, "optimizer.lr=1e-2,1e-9", *tags, f"hydra/launcher={launcher}")
    assert call(*sweeping).code == 0
    sweep = only()
    kept = {"a": "${oc.env:API_TOKEN}", "b": r"\${x}"}
    assert [job.config["tracking"]["tags"] for job in manifest.read(sweep).jobs] == [kept, kept]
    files = [path for path in sweep.path.rglob("*") if path.is_file()]
    assert not [path for path in files if b"hunter2" in path.read_bytes()]
    # whoever got the folder is asked first; who types the command has said it
    shutil.rmtree(sweep.job(0).path)
    monkeypatch.delenv("DLRUN_TRUSTED")
    refuses(call("resume", sweep.id), "trusted=[oc.env.API_TOKEN]")
    assert call(*sweeping).code == 0
    assert [result.status for result in results(sweep)] == ["finished"] * 2


def test_failures_harm_no_other_job_and_can_be_tried_again(call: Call, odd: Path) -> None:
    ways = ["well", "raises", "exits", "dies", "diverges", "fine"]
    sweeping = ("train", "-m", "model=odd", "trainer.steps=10", *QUICK)
    done = call(*sweeping, f"model.way={','.join(ways)},a,b,c,d,e,f")
    assert done.code == 1
    sweep = only()
    found = by_way(sweep)
    statuses = {way: found[way].status for way in ways}
    assert statuses == {
        "well": "finished",
        "raises": "failed",
        "exits": "failed",
        "dies": "killed",
        "diverges": "failed",
        "fine": "finished",
    }
    assert sum(result.status == "finished" for result in found.values()) == 8
    for way, told in {"raises": "an accident", "exits": "code 3", "dies": "SIGKILL", "diverges": "NonFinite"}.items():
        assert told in found[way].summary.error
        assert done.err.count(f"model.way={way}") >= 2  # at once and again at the end
    assert (sweep.summary().status, sweep.summary().finished, sweep.summary().failed) == ("failed", 8, 3)
    assert (sweep.report / "report.md").exists()
    # one is killed: nothing is selected, and no test split read
    assert sweep.summary().selected is None
    assert not any(result.summary.test_reads for result in found.values())
    says(done.out, "1 of 12 jobs is killed", f"`dlrun report {sweep.id} --select`")

    # what was killed is continued, what failed stays
    begun = {way: result.run.journal.stat().st_mtime_ns for way, result in found.items()}
    (odd / "mended").touch()
    again = call("resume", sweep.id, "--retry-failed")
    assert again.code == 0, again.err
    says(again.out, "8 of 12 finished")
    after = by_way(sweep)
    assert {result.status for result in after.values()} == {"finished"}
    written = {way for way in after if after[way].run.journal.stat().st_mtime_ns != begun[way]}
    assert written - {way for way in ways if statuses[way] == "finished"} >= {"raises", "exits", "dies", "diverges"}
    assert len(written) <= 6  # those four, and the chosen ones whose test was read
    assert sum(bool(result.summary.test_reads) for result in after.values()) == 1


def test_a_selection_that_was_tested_stays(call: Call, odd: Path) -> None:
    killed = call("train", "-m", "model=odd", "trainer.steps=10", *QUICK, "model.way=dies,well", "seed=0,1")
    sweep = only()
    assert (killed.code, sweep.summary().selected) == (1, None)
    refuses(call("test", sweep.id), "2 of 4 jobs are killed", f"dlrun resume {sweep.id}")
    requested = call("report", sweep.id, "--select")
    assert requested.code == 0, requested.err
    says(requested.out, "on request, while 2 of 4 jobs were killed", "read 2 times, by 2 runs of the selected")
    says(call("runs", "--sweeps").out, "model.way=well (on request, while 2 of 4 jobs were killed)")

    assert f'"sweep": "{sweep.id}"' in sweep.job(2).journal.read_text()

    # as if the resumed jobs were better
    (odd / "mended").touch()
    assert call("resume", sweep.id).code == 0
    for n in (0, 1):
        with sweep.job(n).edit_summary() as summary:
            summary.metrics = {**summary.metrics, "val/error": 0.0}
    with sweep.edit_summary() as summary:
        summary.status = "killed"
    resumed = call("resume", sweep.id)
    says(resumed.out, "Now `model.way=dies` would be selected", f"dlrun report {sweep.id} --select --force")
    assert [r.summary.test_reads for r in results(sweep)] == [0, 0, 1, 1]
    refuses(call("report", sweep.id, "--select"), "`model.way=well`", "`model.way=dies`", "--force")
    forced = call("report", sweep.id, "--select", "--force")
    assert forced.code == 0, forced.err
    says(forced.out, "again, after the test split had been read for `model.way=well`", "read 4 times")
    assert [r.summary.test_reads for r in results(sweep)] == [1, 1, 1, 1]
    says(call("test", sweep.id).out, "2 times by 2 runs not selected (`model.way=well`)")


def test_jobs_that_were_finished_one_by_one_are_selected_among(call: Call, odd: Path) -> None:
    assert call("train", "-m", "model=odd", "trainer.steps=10", *QUICK, "model.way=dies,well").code == 1
    (odd / "mended").touch()
    sweep = only()
    assert call("resume", f"{sweep.id}/0").code == 0
    assert call("resume", sweep.id).code == 0
    assert sweep.summary().selected
    assert sum(r.summary.test_reads for r in results(sweep)) == 1


def test_a_launcher_that_is_killed_leaves_nothing_behind_and_its_sweep_is_continued(call: Call, odd: Path) -> None:
    command = [sys.executable, "-m", "dlrun"]
    overrides = ["model=odd", "model.way=slow", "trainer.steps=40", "trainer.checkpoint_every=1", "seed=range(3)"]
    with (odd / "log").open("wb") as log:
        launcher = Process(
            [*command, "train", "-m", *overrides, *QUICK, "hydra.launcher.slots=2"], stdout=log, stderr=log, cwd=odd
        )
        try:
            assert wait_until(lambda: bool(all_sweeps()) and only().job(0).last.exists(), 90), (odd / "log").read_text()
        finally:
            launcher.kill()
            launcher.wait()
    sweep = only()
    assert wait_until(lambda: not any(sweep.job(n).alive() for n in range(3)), 40)
    assert sweep.status() == "killed"
    statuses = [result.status for result in results(sweep)]
    assert "killed" in statuses
    assert "running" not in statuses
    done = call("resume", sweep.id)
    assert done.code == 0, done.err
    says(done.out, "continuing")
    assert [(r.status, r.summary.steps) for r in results(sweep)] == [("finished", 40)] * 3
    assert '"resumed_from": ' in sweep.job(0).journal.read_text()
    assert sweep.summary().test_reads == 3


def test_a_sweep_that_has_changed_is_refused_with_the_differences(call: Call, odd: Path) -> None:
    sweeping = ("train", "-m", "model=odd", "trainer.steps=2", *QUICK)
    assert call(*sweeping, "model.way=well,fine", "hydra.launcher.slots=1").code == 0
    sweep = only()
    elsewhere = call(*sweeping, "model.way=well,slow", f"hydra.sweep.dir={sweep.path}")
    refuses(elsewhere, "another sweep", "sweep", "well,slow", "Leave out hydra.sweep.dir")
    assert "sweep.fresh" not in elsewhere.err

    shutil.rmtree(sweep.job(1).path)
    with sweep.hold():
        second = call("resume", sweep.id)
    refuses(second, "in use")

    (odd / "odd.py").write_text(ODD + "\n# changed\n")
    refuses(call("resume", sweep.id), "your modules")
    other = call(*sweeping, "model.way=well,fine")
    assert other.code == 0
    says(other.out, f"your modules are not those of sweep {sweep.id}: this is another one")
    (odd / "odd.py").write_text(ODD)
    assert call("resume", sweep.id).code == 0
    assert [r.status for r in results(sweep)] == ["finished"] * 2
    longer = call("resume", sweep.id, "trainer.epochs=3")
    refuses(longer, f"dlrun resume {sweep.id}`", manifest.read(sweep).command, f"resume {sweep.id}/0")


def test_a_configuration_that_is_edited_meanwhile_changes_nothing(call: Call, odd: Path) -> None:
    sweeping = ("train", "-m", "model=odd", "trainer.steps=2", "seed=0,1", *QUICK)
    assert call(*sweeping).code == 0
    sweep = only()
    shutil.rmtree(sweep.job(1).path)
    (odd / "conf/model/odd.yaml").write_text("_target_: odd.Odd\nway: raises\n")
    assert call("resume", sweep.id).code == 0
    assert [r.status for r in results(sweep)] == ["finished"] * 2
    assert "way: well" in sweep.job(1).config.read_text()


BAD = {
    "seed=range(0)": ["empty"],
    "optimizer.lr=0.1,abc": ["1 of 2 jobs", "optimizer.lr=abc", "a number"],
    "optimizer.rl=0.1,0.2": ["no key `rl`"],
    "model=mlp,mpl": ["Did you mean `mlp`"],
    "trainer.steps=0,1": ["trainer.steps=0", "greater than 0"],
    "evaluation.monitor=test/error seed=0,1": ["validation metric"],
    "dataset.validation_size=0 optimizer.lr=1,2": ["dataset.validation_size"],
    "optimizer.lr=interval(0,1)": ["search"],
    "hydra.launcher.on_failure=halt seed=0,1": ["`halt`"],
    "hydra.sweep.subdir=x seed=0,1": ["hydra.sweep.subdir"],
    "hydra.launcher.slots=0 seed=0,1": ["hydra.launcher.slots=0", "at least 1"],
    "hydra.launcher.slots=all seed=0,1": ["hydra.launcher.slots=all", "a whole number"],
    "hydra.launcher.threads=1.5 seed=0,1": ["hydra.launcher.threads=1.5", "Type for example hydra.launcher.threads=2"],
    "hydra/launcher=batched hydra.launcher.verify=-1 seed=0,1": ["hydra.launcher.verify=-1", "at least 0"],
    "hydra/launcher=batched hydra.launcher.verify=two seed=0,1": ["hydra.launcher.verify=two", "a whole number"],
}


@pytest.mark.parametrize("overrides", BAD)
@pytest.mark.parametrize("command", ["train", "check"])
def test_a_mistake_starts_nothing_and_leaves_nothing(call: Call, here: Path, command: str, overrides: str) -> None:
    if command == "check" and overrides.startswith("hydra"):
        pytest.skip("a check makes no folder and has no failures")
    done = call(command, "-m", *QUICK, *overrides.split())
    refuses(done, *BAD[overrides])
    assert not list(here.iterdir())


def test_check_lists_the_jobs_and_what_they_take(call: Call, here: Path) -> None:
    done = call("check", "-m", *SHORT, "optimizer.lr=0.1,0.2", "seed=range(2)")
    assert done.code == 0, done.err
    assert done.out.startswith("4 jobs in 2 groups")
    says(done.out, "optimizer.lr=0.2 seed=1", "slots", "time", "memory", "disk", "nothing was trained")
    assert not list(here.iterdir())


def test_one_job_after_another_stops_at_the_first_failure(call: Call, odd: Path) -> None:
    launcher = ("hydra.launcher.on_failure=stop", "hydra.launcher.slots=1")
    sweeping = ("train", "-m", "model=odd", "trainer.steps=10", *QUICK, "model.way=raises,well")
    done = call(*sweeping, *launcher)
    assert done.code == 1
    found = by_way(only())
    assert (found["raises"].status, found["well"].status) == ("failed", "missing")
    assert only().summary().selected is None
    assert re.search(r"`dlrun resume \w+ --retry-failed`", done.err)


def test_a_study_of_the_test_curve_reads_it_in_every_run(call: Call, here: Path) -> None:
    assert call("train", "-m", *SHORT, "optimizer.lr=1e-2,1e-9", "evaluation.test=every").code == 0
    assert [r.summary.test_reads for r in results(only())] == [1, 1]
    assert only().summary().selected["jobs"] == [0]


def test_ctrl_c_saves_and_the_same_command_goes_on(call: Call, odd: Path) -> None:
    sweeping = ("train", "-m", "model=odd", "model.way=slow", "trainer.steps=40", *QUICK, "seed=0,1")
    with (odd / "log").open("wb") as log:
        launcher = Process([sys.executable, "-m", "dlrun", *sweeping], stdout=log, stderr=log, cwd=odd)
        try:
            assert wait_until(lambda: bool(all_sweeps()) and only().job(0).journal.exists(), 90)
            os.kill(launcher.pid, signal.SIGINT)
            assert launcher.wait(60) == 130, (odd / "log").read_text()
        finally:
            launcher.kill()
            launcher.wait()
    assert only().status() == "killed"
    says((odd / "log").read_text(), "dlrun resume")
    done = call(*sweeping)
    assert done.code == 0, done.err
    says(done.out, "continuing")
    assert [r.status for r in results(only())] == ["finished"] * 2


def test_a_job_that_wants_something_of_hydra_is_run_by_it_and_is_the_same(call: Call, here: Path) -> None:
    sweeping = ("train", "-m", *SHORT, "seed=3", "sweep.fresh=true")
    assert call(*sweeping).code == 0
    assert call(*sweeping, "+hydra.job.env_set.MINE=1").code == 0
    plain, other = (results(sweep)[0] for sweep in all_sweeps())
    folders = sorted([plain.run.path, other.run.path], key=lambda path: (path / ".hydra/hydra.yaml").exists())
    assert [(path / ".hydra/hydra.yaml").exists() for path in folders] == [False, True]
    assert plain.metrics == other.metrics
    assert plain.summary.identity == other.summary.identity
    one, two = (OmegaConf.load(path / ".hydra/config.yaml") for path in folders)
    assert one == two


def test_a_sweep_is_deleted_whole_or_not_at_all(call: Callable[..., Any]) -> None:
    assert call("train", "-m", *SHORT, "seed=0,1").code == 0
    sweep = all_sweeps()[-1]
    refused = call("runs", sweep.id, "--where", "seed=0", "--delete", "--yes")
    assert (refused.code, sweep.path.exists()) == (2, True)
    assert call("runs", "--sort", "run").code == 2
