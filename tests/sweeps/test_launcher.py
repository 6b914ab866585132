"""The launcher `local` under any Hydra app: Hydra's own suites, and failed jobs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import version
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite

from tests.conftest import Called
from tests.facts import says


@pytest.fixture(autouse=True)
def of_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo the version of Hydra that another test has set: the suites' programs set none."""
    monkeypatch.setattr(version.VersionBase.instance(), "version_base", version.__compat_version__)


def test_hydra_finds_it() -> None:
    assert "LocalLauncher" in [found.__name__ for found in Plugins.instance().discover(Launcher)]


@pytest.mark.parametrize(("launcher_name", "overrides"), [("local", ["hydra.launcher.slots=2"])])
class TestLauncher(LauncherTestSuite):
    """Every test of Hydra's suite applies; none is skipped."""


@pytest.mark.skipif("DLRUN_SLOW_TESTS" not in os.environ, reason="thirty whole programs: set DLRUN_SLOW_TESTS=1")
@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"), [({}, ["-m", "hydra/launcher=local", "hydra.launcher.slots=1"])]
)
class TestIntegration(IntegrationTestSuite):
    """Every test of Hydra's suite applies; the smaller TestLauncher above is always run."""


PROGRAM = """
import os, sys
import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback

class Told(Callback):
    def on_job_end(self, config, job_return, **kwargs):
        print("told", job_return.status.name)

@hydra.main(version_base=None, config_path=None)
def task(cfg):
    print("x is", cfg.x, "and", os.environ["MINE"], HydraConfig.get().job.num)
    if cfg.x == 1:
        raise ValueError("one is bad")
    if cfg.x == 2:
        sys.exit(5)
    if cfg.x == 3:
        os.kill(os.getpid(), 9)

task()
"""


def sweep(here: Path, *overrides: str) -> Called:
    (here / "program.py").write_text(PROGRAM)
    settings = ["hydra/launcher=local", "hydra.sweep.dir=sweep", "+hydra.job.env_set.MINE=mine"]
    settings.append("+hydra.callbacks.told._target_=__main__.Told")
    command = [sys.executable, "program.py", "-m", *settings, *overrides]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120)
    return Called(done.returncode, done.stdout, done.stderr)


def test_a_failed_job_is_told_at_once_and_again_and_harms_no_other(here: Path) -> None:
    done = sweep(here, "+x=0,1,2,3,4", "hydra.launcher.slots=2")
    assert done.code == 1
    for n, said in enumerate(["told COMPLETED", "ValueError: one is bad", "x is 2", "x is 3", "told COMPLETED"]):
        log = (here / "sweep" / str(n) / "output.log").read_text()
        assert f"x is {n} and mine {n}" in log
        assert said in log
        assert (here / "sweep" / str(n) / ".hydra" / "overrides.yaml").read_text() == f"- +x={n}\n"
    for x, told in ((1, "ValueError: one is bad"), (2, "exited with code 5"), (3, "killed by SIGKILL")):
        assert done.err.count(f"job {x} failed: +x={x}\n  {told}\n") == 2
    says(done.err, "3 of 5 jobs failed")
    # Hydra's own account, of the first that failed
    says(done.err, "Error executing job with overrides: ['+x=1']")


def test_a_failed_job_can_stop_the_sweep(here: Path) -> None:
    done = sweep(here, "+x=0,1,4", "hydra.launcher.slots=1", "hydra.launcher.on_failure=stop")
    assert done.code == 1
    assert [folder.name for folder in sorted((here / "sweep").glob("[0-9]"))] == ["0", "1"]


def test_what_to_do_on_failure_is_one_of_two_words(here: Path) -> None:
    done = sweep(here, "+x=0,4", "hydra.launcher.on_failure=stopp")
    assert done.code == 1
    says(done.err, "hydra.launcher.on_failure=`stopp`", "continue, stop", "Did you mean `stop`?")
    assert not (here / "sweep" / "0").exists()
