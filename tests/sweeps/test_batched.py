"""The launcher `batched`: the same sweep as by `local`, stacked or in one process, whatever its jobs do."""

from __future__ import annotations

import importlib
import json
import logging
import os
import random
import re
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hydra import version
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.test_utils.launcher_common_tests import LauncherTestSuite

from dlrun.datasets.tensors.split import TensorSplit
from dlrun.engine import loop
from dlrun.runs.interrupt import Interrupt
from dlrun.runs.parts import make_dataset
from dlrun.storage import checkpoint, manifest
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.jobs.job import Job
from dlrun.storage.lookup import all_sweeps
from dlrun.storage.results import Result, results
from dlrun.storage.rundir import RunDir
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.batched import shared_data, short_jobs, timing
from dlrun.sweeps.batched.members import Builder
from dlrun.sweeps.batched.shared_data import SharedData
from dlrun.sweeps.pool.slots import Slot
from dlrun.sweeps.pool.task import Task, TaskResult
from dlrun.terminal import output
from dlrun.types import Data
from tests.facts import says
from tests.processes import Process
from tests.summaries import summarise

Call = Callable[..., Any]

QUIET = ("tracking.enabled=false", "trainer.figures=false", "trainer.threads=1", "hydra.launcher.slots=1")
FITS = ("train", "+experiment=polynomial_capacity", "model.degree=1,3", "seed=0,1", *QUIET)
MLPS = ("train", "-m", "dataset=moons", "model=mlp", "model.width=8", "trainer.epochs=2", *QUIET)
BATCHED = "hydra/launcher=batched"
LOCAL = "hydra/launcher=local"


@pytest.fixture
def of_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the version that another test has named to Hydra: the suite's programs name none."""
    monkeypatch.setattr(version.VersionBase.instance(), "version_base", version.__compat_version__)


def test_hydra_finds_it() -> None:
    assert "BatchedLauncher" in [found.__name__ for found in Plugins.instance().discover(Launcher)]


@pytest.mark.skipif("DLRUN_SLOW_TESTS" not in os.environ, reason="the suite is run for `local`, which does its work")
@pytest.mark.usefixtures("of_no_version")
@pytest.mark.parametrize(("launcher_name", "overrides"), [("batched", ["hydra.launcher.slots=2"])])
class TestLauncher(LauncherTestSuite):
    """Every test of Hydra's suite applies."""


def run_sweep(call: Call, *argv: str) -> tuple[Any, list[Result]]:
    """A command's output, and the results of the sweep that it made."""
    before = {sweep.path for sweep in all_sweeps()}
    done = call(*argv, "sweep.fresh=true")
    (sweep,) = (sweep for sweep in all_sweeps() if sweep.path not in before)
    return done, results(sweep)


def shared_summary(result: Result) -> dict[str, Any]:
    """A job's summary without the values of one run of it."""
    own = ("started", "command", "sweep", "seconds", "train_seconds", "launcher", "stacked", "cost")
    return {name: value for name, value in result.summary.to_dict().items() if name not in own}


def files(result: Result) -> set[str]:
    return {str(file.relative_to(result.run.path)) for file in result.run.path.rglob("*") if file.is_file()}


def test_jobs_in_one_process_are_what_they_are_in_their_own(call: Call, here: Path) -> None:
    ours, mine = run_sweep(call, *FITS, BATCHED)
    assert ours.code == 0, ours.err
    says(ours.out, "4 short jobs in this process")
    _, theirs = run_sweep(call, *FITS, LOCAL)
    for one, other in zip(mine, theirs, strict=True):
        assert shared_summary(one) == shared_summary(other)
        assert (one.summary.launcher, other.summary.launcher) == ("batched", None)
        assert files(one) == files(other)
        assert one.run.config.read_text() == other.run.config.read_text()
        a, b = (checkpoint.load_best(r.run.best).model["coefficients"] for r in (one, other))
        assert torch.equal(a, b)
        lines = [[json.loads(line) for line in r.run.journal.read_text().splitlines()] for r in (one, other)]
        assert [sorted({*a}) for a in lines[0]] == [sorted({*b}) for b in lines[1]]
        assert words(one) == words(other)


def words(result: Result) -> list[str]:
    """The first word of each line of a run's log, without the path of its folder."""
    lines = result.run.log.read_text().splitlines()
    return [word for line in lines if "outputs/" not in (word := line.split()[0])]


@pytest.fixture
def faster_stacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the timing favour the stack, as on an idle machine."""
    monkeypatch.setattr(timing, "time_stacked", lambda trainings, threads: 0.0)


@pytest.mark.usefixtures("faster_stacked")
def test_a_stack_is_what_its_runs_are_alone(call: Call, here: Path) -> None:
    values = ("optimizer.lr=0.01,0.001", "seed=0,1", "hydra.launcher.verify=1")
    ours, mine = run_sweep(call, *MLPS, *values, BATCHED)
    assert ours.code == 0, ours.err
    says(
        ours.out,
        "4 jobs as one program",
        "verify: optimizer.lr=0.01 seed=0: alone",
        "differs in the weights by at most",
    )
    _, theirs = run_sweep(call, *MLPS, *values[:2], LOCAL)
    for one, other in zip(mine, theirs, strict=True):
        assert one.summary.stacked == 4
        assert {*shared_summary(one)} == {*shared_summary(other)}
        assert one.summary.identity == other.summary.identity
        assert files(one) == files(other)
        assert one.summary.last == pytest.approx(other.summary.last, abs=1e-5)
        assert {*one.curves()} == {*other.curves()}
        assert one.curves()["val/loss"] == [(s, pytest.approx(v, abs=1e-5)) for s, v in other.curves()["val/loss"]]
        assert ("test/loss" in one.metrics) == ("test/loss" in other.metrics)
        assert one.summary.best_step == other.summary.best_step


@pytest.mark.usefixtures("faster_stacked")
def test_a_comparison_that_fails_repeats_no_job_and_leaves_the_settings(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*parts: Any) -> None:
        torch.set_default_dtype(torch.float64)
        raise RuntimeError("no room")

    monkeypatch.setattr(loop, "train", _once(loop.train, fails))
    done, found = run_sweep(call, *MLPS, "seed=0,1", "hydra.launcher.verify=1", BATCHED)
    assert done.code == 0, done.err
    says(done.err, "verify: seed=0: alone", "could not be trained: RuntimeError: no room")
    assert "one by one" not in done.err
    assert torch.get_default_dtype() == torch.float32
    assert [r.status for r in found] == ["finished"] * 2
    assert all(r.run.journal.read_text().count('"start"') == 1 for r in found)


def _once(first: Call, then: Call) -> Call:
    """`first` at the first call, `then` at all others."""
    calls = iter([first])
    return lambda *parts, **named: next(calls, then)(*parts, **named)


def test_jobs_share_their_data_wherever_it_lies_and_however_far_they_are(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(*MLPS, "seed=0,1,2", BATCHED, "sweep.fresh=true").code == 0
    sweep: SweepDir = all_sweeps()[0]
    jobs = manifest.read(sweep).jobs
    copies: list[TensorSplit] = []

    def moved(split: TensorSplit, device: torch.device) -> TensorSplit:
        """Copy a split once, as to a GPU."""
        if not any(split.x is copy.x for copy in copies):
            copies.append(TensorSplit(split.x.clone(), split.y.clone()))
            return copies[-1]
        return split

    monkeypatch.setattr(TensorSplit, "to", moved)
    for folder_of, resumed in ((sweep.job, True), (lambda n: RunDir(here / "nowhere"), False)):
        builder = Builder(folder_of, SharedData())
        members = [builder.member(job) for job in jobs]
        assert [member.resumed for member in members] == [resumed] * 3
        assert len({id(cast("TensorSplit", member.built.data.train).x) for member in members}) == 1


def test_what_cannot_be_one_program_is_told_with_the_reason(call: Call, here: Path) -> None:
    done, found = run_sweep(call, *MLPS, "optimizer=lbfgs,muon", "trainer.batch_size=null", "seed=0,1", BATCHED)
    assert done.code == 0, done.err
    says(done.out, "program: LBFGS takes no gradient steps", "program: Muon is no rule for many")
    assert [(r.status, r.summary.stacked) for r in found] == [("finished", None)] * 4


@pytest.mark.usefixtures("faster_stacked")
def test_a_member_that_diverges_fails_alone(call: Call, here: Path) -> None:
    done, found = run_sweep(call, *MLPS, "optimizer=sgd", "optimizer.lr=0.1,1e+30,0.2", BATCHED)
    assert done.code == 1
    assert [r.status for r in found] == ["finished", "failed", "finished"]
    assert "NonFinite" in found[1].summary.error
    says(done.err, "job 1 failed: optimizer.lr=1e+30")


@pytest.mark.usefixtures("faster_stacked")
def test_a_program_that_fails_leaves_its_runs_to_go_on_one_by_one(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dlrun.sweeps.batched import training as stack

    def fails(*parts: Any) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(stack, "StackedTraining", fails)
    done, found = run_sweep(call, *MLPS, "seed=0,1", BATCHED)
    assert done.code == 0, done.err
    says(done.err, "2 jobs could not be trained as one program", "one by one: RuntimeError: no room")
    assert [r.status for r in found] == ["finished"] * 2


@pytest.mark.parametrize(("seconds", "launcher"), [(1e-3, "batched"), (2.0, None)])
def test_jobs_that_are_slower_stacked_run_here_only_if_they_are_short(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, launcher: str | None
) -> None:
    monkeypatch.setattr(timing, "time_stacked", lambda trainings, threads: 2 * seconds)
    monkeypatch.setattr(timing, "time_single", lambda training, threads: seconds)
    two = "hydra.launcher.slots=2"
    done, found = run_sweep(call, *MLPS, "seed=0,1", "hydra.launcher.verify=1", BATCHED, two)
    assert done.code == 0, done.err
    says(done.out, "2 jobs not as one program", "stacked", "alone", "verify: no jobs")
    assert [(r.summary.stacked, r.summary.launcher) for r in found] == [(None, launcher)] * 2


def test_jobs_that_follow_one_another_load_their_data_once(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []

    def load(config: dict[str, Any]) -> Data:
        loads.append(config["dataset"])
        return make_dataset(config)

    monkeypatch.setattr(shared_data, "make_dataset", load)
    done, found = run_sweep(call, *MLPS, "trainer.steps=3", "seed=0,1,2", BATCHED, "hydra.launcher.slots=1")
    assert done.code == 0, done.err
    says(done.out, "testing")
    assert all("test/loss" in result.metrics for result in found)
    assert len(loads) == 1


def test_a_search_and_jobs_of_ones_own_run_as_by_local(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    importlib.invalidate_caches()
    (here / "mine.py").write_text("from dlrun.models.linear import Linear as Mine\n")
    (here / "conf/model").mkdir(parents=True)
    (here / "conf/model/mine.yaml").write_text("_target_: mine.Mine\n")
    done, found = run_sweep(call, *MLPS[:3], "model=mine", "trainer.steps=2", *QUIET, "seed=0,1", BATCHED)
    assert done.code == 0, done.err
    says(done.out, "2 jobs as by hydra/launcher=local: mine.Mine", "not dlrun's")
    assert [r.summary.launcher for r in found] == [None, None]


def test_a_sweep_that_is_killed_goes_on_where_its_stack_stood(call: Call, here: Path) -> None:
    slow = (*MLPS, "trainer.steps=400", "trainer.checkpoint_every=20", "seed=range(6)", BATCHED)
    with (here / "log").open("wb") as log:
        launcher = Process([sys.executable, "-m", "dlrun", *slow], stdout=log, stderr=log, cwd=here)
        try:
            begun = wait_until(lambda: bool(all_sweeps()) and all_sweeps()[0].job(5).last.exists(), 90)
            assert begun, (here / "log").read_text()
        finally:
            launcher.kill()
            launcher.wait()
    (sweep,) = all_sweeps()
    assert [r.status for r in results(sweep)] == ["killed"] * 6
    steps = [checkpoint.load(sweep.job(n).last).step for n in range(6)]
    done = call("resume", sweep.id)
    assert done.code == 0, done.err
    found = results(sweep)
    assert [r.status for r in found] == ["finished"] * 6
    for step, result in zip(steps, found, strict=True):
        assert f'"resumed_from": {step}' in result.run.journal.read_text()
    _, alone = run_sweep(call, *slow[:-2], "seed=0,1", LOCAL)
    for one, other in zip(found, alone, strict=False):
        assert one.summary.steps == other.summary.steps
        assert one.summary.last == pytest.approx(other.summary.last, abs=1e-3)


def test_ctrl_c_saves_a_stack_and_the_same_command_goes_on(call: Call, here: Path) -> None:
    slow = (*MLPS, "trainer.steps=2500", "trainer.evaluate_every=500", "seed=range(6)", BATCHED)
    with (here / "log").open("wb") as log:
        launcher = Process([sys.executable, "-m", "dlrun", *slow], stdout=log, stderr=log, cwd=here)
        try:
            begun = wait_until(lambda: bool(all_sweeps()) and b"metrics" in _bytes(all_sweeps()[0].job(5).journal), 90)
            assert begun, (here / "log").read_text()
            os.kill(launcher.pid, signal.SIGINT)
            assert launcher.wait(60) == 130, (here / "log").read_text()
        finally:
            launcher.kill()
            launcher.wait()
    (sweep,) = all_sweeps()
    assert [(r.status, r.summary.error) for r in results(sweep)] == [("killed", "KeyboardInterrupt")] * 6
    assert all(sweep.job(n).last.exists() for n in range(6))
    done = call(*slow)
    assert done.code == 0, done.err
    says(done.out, "continuing")
    assert [r.status for r in results(sweep)] == ["finished"] * 6


def _bytes(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""


def run_here(calls: list[Callable[[], Any]], log: Path, *, stop_at: int | None = None) -> list[TaskResult]:
    """The results of calls in this process."""
    found: list[TaskResult] = []

    def done(outcome: TaskResult) -> bool:
        found.append(outcome)
        return len(found) != stop_at

    short_jobs.run((Task(n, c, f"job {n}", log) for n, c in enumerate(calls)), Slot(0, None, 1), on_result=done)
    return found


def _mess() -> None:
    """Change what a run of dlrun's and torch's parts may change of a process."""
    os.environ["MESS"] = "1"
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(3)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    logging.basicConfig(handlers=[logging.StreamHandler()], level=logging.DEBUG)
    warnings.simplefilter("ignore")
    print("a mess")
    os.write(1, b"on the descriptor\n")


def state() -> dict[str, Any]:
    return {
        "environment": dict(os.environ),
        "type": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "benchmark": torch.backends.cudnn.benchmark,
        "handlers": logging.getLogger().handlers[:],
        "level": logging.getLogger().level,
        "filters": warnings.filters[:],
    }


def test_a_job_leaves_the_process_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before, log = state(), tmp_path / "log"
    (found,) = run_here([_mess], log)
    assert found.error is None
    assert state() == before
    assert log.read_text() == "a mess\non the descriptor\n"
    assert capfd.readouterr() == ("", "")


def test_jobs_that_raise_or_exit_fail_alone(tmp_path: Path) -> None:
    def raises() -> None:
        raise ValueError("an accident")

    found = run_here([lambda: 1, raises, lambda: sys.exit(3), lambda: sys.exit(), random.random], tmp_path / "log")
    assert [outcome.message for outcome in found] == [
        "",
        "ValueError: an accident",
        "exited with code 3",
        "exited with code 0",
        "",
    ]
    assert found[0].value == 1
    assert "Traceback" in (tmp_path / "log").read_text()


def test_no_further_job_is_started_when_one_says_so(tmp_path: Path) -> None:
    assert len(run_here([lambda: 1, lambda: 2, lambda: 3], tmp_path / "log", stop_at=2)) == 2


def test_an_interrupt_is_obeyed_by_the_job_and_ends_the_sweep(tmp_path: Path) -> None:
    ran: list[int] = []

    def job() -> None:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupt.signal == signal.SIGTERM
            ran.append(1)
            raise SystemExit(143)

    with pytest.raises(SystemExit, match="143"):
        run_here([job, job], tmp_path / "log")
    assert ran == [1]


def test_a_job_that_swallows_an_interrupt_ends_the_sweep_too(tmp_path: Path) -> None:
    ran: list[int] = []

    def job() -> None:
        with Interrupt():
            os.kill(os.getpid(), signal.SIGINT)
        ran.append(1)

    with pytest.raises(KeyboardInterrupt):
        run_here([job, job], tmp_path / "log")
    assert ran == [1]


@pytest.mark.parametrize(
    ("trainer", "short"),
    [
        ({"steps": 1}, True),
        ({"steps": short_jobs.SHORT}, False),
        ({"steps": None}, False),
        ({"steps": None, "fast": True}, True),
        ({"steps": 1, "minutes": 0.1}, False),  # minutes go before steps
    ],
)
def test_a_job_of_few_steps_is_short(trainer: dict[str, Any], short: bool) -> None:
    job = Job(0, (), {"trainer": {"minutes": None, "fast": False} | trainer}, "", "")
    assert short_jobs.is_short(job) == short


def test_short_jobs_that_take_long_leave_the_rest_to_the_pool(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the first has taken longer than the pool's start, and longer than a process costs
    monkeypatch.setattr(timing, "SERVER", 0.0)
    monkeypatch.setattr(timing, "PROCESS", -1.0)
    done, found = run_sweep(call, *FITS, BATCHED)
    assert done.code == 0, done.err
    says(done.out, "3 jobs as by hydra/launcher=local", "one takes")
    assert [r.summary.launcher for r in found] == ["batched", None, None, None]


def test_a_job_that_was_killed_without_a_word_gets_a_process(call: Call, here: Path) -> None:
    assert call(*FITS, BATCHED).code == 0
    sweep: SweepDir = all_sweeps()[0]
    summarise(sweep.job(1), status="killed")
    done = call("resume", sweep.id)
    assert done.code == 0, done.err
    says(done.out, "1 job as by hydra/launcher=local", "killed without a word")
    assert [r.status for r in results(sweep)] == ["finished"] * 4


@pytest.mark.usefixtures("faster_stacked")
def test_a_damaged_checkpoint_fails_its_own_job_alone(call: Call, here: Path) -> None:
    slow = (*MLPS, "seed=range(3)", BATCHED)
    assert call(*slow).code == 0
    (sweep,) = all_sweeps()
    for n in range(3):
        summarise(sweep.job(n), status="killed", stacked=3)
    sweep.job(1).last.write_bytes(b"damaged")
    done = call("resume", sweep.id)
    assert done.code == 1
    assert [r.status == "finished" for r in results(sweep)] == [True, False, True]
    says(done.err, "cannot be read as a checkpoint")


@pytest.mark.usefixtures("faster_stacked")
def test_a_stack_is_shown_while_it_trains(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "HEARTBEAT", 0.0)
    done, found = run_sweep(call, *MLPS, "seed=0,1", BATCHED)
    assert done.code == 0, done.err
    steps = found[0].summary.steps
    lines = [line for line in done.out.splitlines() if "2 running: epoch" in line]
    assert f"step {steps // 2}/{steps}" in lines[0]
    assert re.search(r"0 of 2 done, 2 running: .* left  median train/loss [0-9.]+  best val/error [0-9.]+$", lines[-1])


@pytest.mark.usefixtures("faster_stacked")
def test_a_tag_is_all_that_tells_a_run_from_one_by_local(call: Call, here: Path) -> None:
    from dlrun.tracking.content import metadata

    _, stacked = run_sweep(call, *MLPS, "seed=0,1", BATCHED)
    _, alone = run_sweep(call, *MLPS, "seed=0,1", LOCAL)
    for one, other in zip(stacked, alone, strict=True):
        ours, theirs = (metadata.tags(r.run, r.job.config, r.summary) for r in (one, other))
        own = {"dlrun.id", "dlrun.folder", "dlrun.stacked", "dlrun.launcher", "dlrun.command"}
        assert {name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)} <= own
        assert (ours["dlrun.launcher"], ours["dlrun.stacked"]) == ("batched", "2")
        assert "dlrun.launcher" not in theirs
