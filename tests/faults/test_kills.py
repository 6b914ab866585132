"""SIGKILL at any moment: what was saved is resumed to the same bits, and MLflow has it once."""

from __future__ import annotations

import random
import time

import pytest

from benchmarks import kill
from dlrun.runs.differences import differences
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.lookup import all_sweeps
from dlrun.storage.results import results
from tests.faults.programs import RUN, Programs


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_runs_killed_at_random_moments_end_as_if_they_had_not_been() -> None:
    section = kill.measure(deaths=4)
    assert all(figure.met for figure in section.figures if figure.met is not None), section.markdown()


@pytest.mark.parametrize("victim", ["sweep", "server", "job"])
def test_a_sweep_loses_no_job(programs: Programs, monkeypatch: pytest.MonkeyPatch, victim: str) -> None:
    command = ("train", "-m", *RUN[1:], "trainer.steps=3000", "seed=range(4)", "tracking.enabled=false")
    monkeypatch.chdir(programs.here)
    process = programs.start(*command, "hydra.launcher.slots=2", "sweep.figures=false")
    assert wait_until(lambda: any(sweep.job(0).last.exists() for sweep in all_sweeps()), 60)
    time.sleep(random.random())
    children = [int(pid) for pid in _children(process.pid)]
    servers = [pid for pid in children if "forkserver" in _command(pid)]
    jobs = [int(pid) for server in servers for pid in _children(server)]
    for pid in {"sweep": [process.pid], "server": servers, "job": jobs}[victim][:1]:
        _kill(pid)
    process.communicate(timeout=200)
    (sweep,) = all_sweeps()
    if any(result.status != "finished" for result in results(sweep)):
        programs.call("resume", sweep.id)
    assert [result.status for result in results(sweep)] == ["finished"] * 4
    # the same jobs again, never interrupted
    programs.call(*command, "sweep.fresh=true", "sweep.figures=false")
    again = all_sweeps()[-1]
    for broken, whole in zip(results(sweep), results(again), strict=True):
        found = [line for line in differences(broken.run, whole.run) if "test/" not in line]
        assert not found


def _children(pid: int) -> list[str]:
    import psutil

    return [str(child.pid) for child in psutil.Process(pid).children()]


def _command(pid: int) -> str:
    import psutil

    return " ".join(psutil.Process(pid).cmdline())


def _kill(pid: int) -> None:
    import psutil

    psutil.Process(pid).kill()
