"""Sweeps by a scheduler: a stand-in's jobs as those of `local`, detached, preempted; and submitit's and Ray's own."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dlrun.config import hydra_targets
from dlrun.errors import ConfigError, UserError
from dlrun.execution.device import choose, choose_of_job, gpus_elsewhere
from dlrun.storage.lookup import all_sweeps
from dlrun.storage.results import results
from dlrun.storage.sweepdir import SweepDir
from dlrun.sweeps.cluster import slurm_job
from dlrun.sweeps.plugins import adopt, gives_gpus, makes_job_runner
from tests.facts import refuses, says
from tests.sweeps.stand_in import StandIn, StandInTask
from tests.sweeps.test_sweep import QUICK, SHORT, odd

Call = Callable[..., Any]
__all__ = ["odd"]

SLURM = ("train", "-m", "hydra/launcher=slurm")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[StandIn]]:
    monkeypatch.setattr("dlrun.sweeps.cluster.on_slurm.SlurmExecutor", StandIn)
    monkeypatch.setattr("dlrun.sweeps.cluster.on_slurm.check", lambda launcher: None)
    monkeypatch.setattr("dlrun.sweeps.cluster.runner.TICK", 0.02)
    monkeypatch.setattr("dlrun.sweeps.cluster.runner.LATE", 0.0)
    monkeypatch.setattr(StandIn, "tasks", {})
    monkeypatch.setattr(StandIn, "held", False)
    monkeypatch.setattr(StandIn, "preempt", None)
    yield StandIn
    for task in StandIn.tasks.values():
        task.kill()


def only() -> SweepDir:
    (sweep,) = all_sweeps()
    return sweep


def test_its_sweep_is_that_of_the_launcher_local(call: Call, here: Path, stand_in: type[StandIn]) -> None:
    asked = (*SHORT, "optimizer.lr=1e-2,1e-9")
    done = call(*SLURM, *asked)
    assert done.code == 0, done.err
    sweep = only()
    assert [result.status for result in results(sweep)] == ["finished"] * 2
    selected = sweep.summary().selected
    assert selected is not None and selected["jobs"] == [0] and selected["read"]
    assert (sweep.report / "report.html").exists()
    # two jobs, and the test of the selected one
    assert len(stand_in.tasks) == 3
    by_slurm = [result.metrics for result in results(sweep)]
    # the launcher is no part of a sweep
    says(call("train", "-m", *asked).out, "all 2 jobs have ended")
    assert call("train", "-m", *asked, "sweep.fresh=true").code == 0
    (other,) = (each for each in all_sweeps() if each != sweep)
    assert [result.metrics for result in results(other)] == by_slurm


def test_detached_it_returns_and_a_later_command_finishes(call: Call, here: Path, stand_in: type[StandIn]) -> None:
    stand_in.held = True
    command = (*SLURM, *SHORT, "optimizer.lr=1e-2,1e-9", "hydra.launcher.detach=true")
    says(call(*command).out, "2 of 2 jobs wait or run at slurm", "dlrun runs --sweeps")
    sweep = only()
    assert sweep.status() == sweep.summary().status == "submitted"
    says(call("runs", "--sweeps").out, "submitted", "0/2")
    # typed again it submits nothing twice
    assert call(*command).code == 0
    assert len(stand_in.tasks) == 2

    stand_in.held = False
    done = call("resume", sweep.id)
    assert done.code == 0, done.err
    assert sweep.status() == "finished"
    assert len(stand_in.tasks) == 3
    assert [task.runs for task in stand_in.tasks.values()] == [1, 1, 1]


def test_a_preempted_job_goes_on_to_the_same_result(call: Call, odd: Path, stand_in: type[StandIn]) -> None:
    asked = ("model=odd", "model.way=slow", "trainer.steps=80", *QUICK, "seed=range(1)")

    def once(task: StandInTask) -> bool:
        ready = task.runs == 1 and any(
            journal.stat().st_size for journal in odd.glob("outputs/sweeps/*/*/0/journal.jsonl")
        )
        if ready:
            stand_in.preempt = None
        return ready

    stand_in.preempt = once
    done = call(*SLURM, *asked)
    assert done.code == 0, done.err
    sweep = only()
    assert stand_in.preempt is None
    assert stand_in.tasks["0"].runs == 2
    (result,) = results(sweep)
    says(result.run.log.read_text(), "stopped at step")

    assert call("train", "-m", *asked, "sweep.fresh=true").code == 0
    (other,) = (each for each in all_sweeps() if each != sweep)
    assert results(other)[0].metrics == result.metrics


def test_the_ends_of_jobs_are_told(call: Call, odd: Path, stand_in: type[StandIn]) -> None:
    done = call(*SLURM, "model=odd", "model.way=raises,exits,dies", "trainer.steps=20", *QUICK)
    assert done.code == 1
    assert {r.swept["model.way"]: r.status for r in results(only())} == {
        "raises": "failed",
        "exits": "failed",
        "dies": "killed",
    }
    says(done.err, "ValueError: an accident", "exited with code 3", "ended by the stand-in", "--retry-failed")


def test_a_search_is_not_detached(call: Call, here: Path, stand_in: type[StandIn]) -> None:
    pytest.importorskip("optuna", reason="pip install 'dlrun[search]'")
    done = call(
        *SLURM, "hydra/sweeper=search", *SHORT, "optimizer.lr=interval(1e-3,1e-1)", "hydra.launcher.detach=true"
    )
    assert done.code == 2
    says(done.err, "hydra.launcher.detach=true", "Leave it out")


def test_what_is_not_installed_is_told_before_there_is_a_folder(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("submitit", "ray"):
        monkeypatch.setitem(sys.modules, package, None)
        launcher = {"submitit": "slurm", "ray": "ray"}[package]
        refuses(call("train", "-m", f"hydra/launcher={launcher}", *SHORT, "seed=0,1"), f"dlrun[{launcher}]")
    assert not all_sweeps()


@pytest.mark.parametrize(
    ("plugin", "own"),
    [
        ("hydra_submitit_launcher.submitit_launcher.SlurmLauncher", "slurm.SlurmLauncher"),
        ("hydra_submitit_launcher.submitit_launcher.LocalLauncher", "slurm.SlurmLauncher"),
        ("hydra_ray_launcher.ray_launcher.RayLauncher", "ray.RayLauncher"),
    ],
)
def test_other_plugins_settings_are_kept(plugin: str, own: str) -> None:
    hydra = OmegaConf.create({"launcher": {"_target_": f"hydra_plugins.{plugin}", "mem_gb": 4}})
    adopt(hydra)
    assert hydra.launcher._target_ == f"hydra_plugins.dlrun_cluster.{own}"
    assert hydra.launcher.mem_gb == 4
    assert hydra.launcher.get("cluster") == ("local" if "Local" in plugin else None)
    assert makes_job_runner(hydra.launcher) is not None


@pytest.mark.parametrize(
    "setting", [{"setup": ["curl"]}, {"ray": {"init": {"address": "there"}}}, {"partition": "a\nb"}], ids=str
)
def test_a_saved_sweep_runs_no_commands(setting: dict[str, Any]) -> None:
    base = {"runtime": {"output_dir": ""}, "job": {"num": 0, "id": "0"}, "sweeper": {}, "callbacks": {}}
    launcher = {"_target_": "hydra_plugins.dlrun_cluster.slurm.SlurmLauncher", "partition": "long"}
    hydra_targets.check(OmegaConf.create(base | {"launcher": launcher}), foreign="the saved sweep", home=Path.cwd())
    with pytest.raises(ConfigError, match="is handed to other programs"):
        hydra_targets.check(
            OmegaConf.create(base | {"launcher": launcher | setting}), foreign="the saved sweep", home=Path.cwd()
        )


def test_gpus_that_a_scheduler_gives_count_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    launcher = {"_target_": "hydra_plugins.dlrun_cluster.slurm.SlurmLauncher"}
    asking = [{"gpus_per_node": 1}, {"gpus_per_task": 2}, {"gres": "gpu:1"}, {"ray": {"remote": {"num_gpus": 0.5}}}]
    assert all(gives_gpus(OmegaConf.create(launcher | each)) for each in asking)
    assert not gives_gpus(OmegaConf.create(launcher))
    assert not gives_gpus(OmegaConf.create({"_target_": "hydra_plugins.dlrun_launcher.local.LocalLauncher"}))
    with gpus_elsewhere(True):
        assert (*map(str, choose_of_job("auto", "auto")),) == ("cuda", "tf32")
        assert (*map(str, choose_of_job("cpu", "auto")),) == ("cpu", "fp32")
        # what runs here itself is not meant
        assert choose("auto", "auto")[0].type != "cuda"
    with gpus_elsewhere(False):
        assert choose_of_job("auto", "auto")[0].type != "cuda"


@pytest.mark.parametrize(
    ("shown", "goes_on"),
    [
        ("JobState=RUNNING PreemptTime=2026-01-01T00:00:00 EndTime=2126-01-01T00:00:00", True),
        ("JobState=RUNNING PreemptTime=None EndTime=2126-01-01T00:00:00", False),
        ("JobState=RUNNING PreemptTime=None EndTime=2026-01-01T00:00:00", True),
        ("JobState=CANCELLED PreemptTime=None EndTime=2026-01-01T00:00:00", False),
        ("JobState=RUNNING PreemptTime=None EndTime=Unknown", False),
    ],
)
def test_slurm_runs_again_what_it_has_ended(shown: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(slurm_job, "_run", lambda *command: shown)
    assert slurm_job.is_to_go_on() == goes_on


def test_check_speaks_of_no_slots_of_this_machine(call: Call, here: Path) -> None:
    done = call("check", "-m", "hydra/launcher=slurm", "hydra.launcher.gpus_per_node=1", *SHORT, "seed=0,1")
    assert done.code == 0, done.err
    says(done.out, "2 jobs in 1 group", "slots slurm has them")


def slow(package: str) -> Any:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(
        missing or "DLRUN_SLOW_TESTS" not in os.environ,
        reason=f"new interpreters for each job: pip install {package}, and set DLRUN_SLOW_TESTS=1",
    )


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(("hydra/launcher=slurm", "hydra.launcher.cluster=local"), marks=slow("submitit"), id="submitit"),
        pytest.param(("hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2"), marks=slow("ray"), id="ray"),
    ],
)
# submitit leaves its processes to whoever calls it
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_of_the_real_ones_too(call: Call, odd: Path, launcher: tuple[str, ...]) -> None:
    done = call("train", "-m", *launcher, "model=odd", "model.way=well,raises", "trainer.steps=20", *QUICK)
    assert done.code == 1, done.err
    assert [result.status for result in results(only())] == ["finished", "failed"]
    says(done.err, "ValueError: an accident")


def test_a_setting_that_submitit_refuses_is_a_mistake(here: Path) -> None:
    pytest.importorskip("submitit", reason="pip install 'dlrun[slurm]'")
    from dlrun.sweeps.cluster import on_slurm

    launcher = {"_target_": "hydra_plugins.dlrun_cluster.slurm.SlurmLauncher", "cluster": "local"}
    for setting in ({"mem_gb": "lots"}, {"nodes": 2}, {"cluster": "moon"}):
        with pytest.raises(UserError, match=str(next(iter(setting)))):
            on_slurm.check(OmegaConf.create(launcher | setting))
    on_slurm.check(OmegaConf.create(launcher))
