"""A run that is stopped, however it is stopped, goes on as if it had not been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dlrun.commands.verify_resume import differences
from dlrun.journal import curves, read
from dlrun.rundir import RunDir, all_runs, wait_until
from tests.conftest import Called

Call = Callable[..., Called]
RUN = [
    *("train", "trainer.steps=400", "model.dropout=0.2", "+dataset.augment.shift=1"),
    *("trainer.log_every=1", "trainer.figures=false", "tracking.enabled=false"),
]


def start(here: Path, *overrides: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dlrun", *RUN, *overrides]
    return subprocess.Popen(command, cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def steps(run: RunDir) -> int:
    return max((r["step"] for r in read(run.journal)[0] if "step" in r), default=0)


def begun() -> RunDir:
    wait_until(lambda: bool(all_runs()) and all_runs()[-1].journal.exists(), 60, poll=0.002)
    return all_runs()[-1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    environment = os.environ | {"DLRUN_CACHE": str(tmp_path_factory.mktemp("cache"))}
    subprocess.run([sys.executable, "-m", "dlrun", *RUN], cwd=folder, env=environment, check=True, capture_output=True)
    return RunDir(next(folder.glob("outputs/runs/*/*/.hydra")).parent)


@pytest.mark.parametrize(("after", "every"), [(0, "1000"), (3, "50"), (137, "50"), (260, "7")])
def test_kill_9_and_resume_is_bit_equal(after: int, every: str, whole: RunDir, here: Path, call: Call) -> None:
    process = start(here, f"trainer.checkpoint_every={every}")
    run = begun()
    wait_until(lambda: steps(run) >= after, 60, poll=0.002)
    process.kill()
    process.wait()
    assert run.status() == "killed"
    done = call("resume", run.id)
    assert done.code == 0, done.err
    assert run.status() == "finished"
    assert list(differences(whole, run)) == []


@pytest.mark.parametrize(
    ("number", "code", "status"),
    [(signal.SIGINT, 130, "killed"), (signal.SIGTERM, 143, "killed"), (signal.SIGUSR1, 1, "pruned")],
)
def test_a_signal_saves_at_the_next_step_and_resumes_bit_equal(
    number: signal.Signals, code: int, status: str, whole: RunDir, here: Path, call: Call
) -> None:
    process = start(here, "trainer.checkpoint_every=100000")
    run = begun()
    wait_until(lambda: "val/loss" in curves(run.journal), 60, poll=0.002)
    process.send_signal(number)
    assert process.wait() == code
    assert run.status() == status
    assert run.last.exists()
    assert ("val/loss" in run.summary().get("metrics", {})) == (status == "pruned")
    assert run.summary()["test_reads"] == 0
    assert call("resume", run.id).code == 0
    assert list(differences(whole, run)) == []


def test_a_longer_run_is_the_run_that_was_longer_from_the_start(call: Call) -> None:
    quick = ("trainer.figures=false", "tracking.enabled=false", "trainer.log_every=1")
    call("train", "trainer.epochs=2", *quick)
    call("train", "trainer.epochs=4", *quick)
    short, long = all_runs()
    assert "longer" in call("resume", short.id).out
    done = call("resume", short.id, "trainer.epochs=4")
    assert done.code == 0, done.err
    assert list(differences(short, long)) == []
    assert short.summary()["test_reads"] == 2
    assert OmegaConf.load(short.config).trainer.epochs == 4


@pytest.mark.parametrize(
    ("override", "said"),
    [("optimizer.lr=1", "init_from"), ("trainer.epoch=4", "trainer.epochs"), ("trainer.epochs=abc", "number")],
)
def test_what_cannot_be_changed_is_refused_and_changes_nothing(override: str, said: str, call: Call) -> None:
    call("train", "trainer.epochs=1", "trainer.figures=false", "tracking.enabled=false")
    run = all_runs()[0]
    before = run.config.read_text()
    done = call("resume", run.id, override)
    assert done.code == 2
    assert said in done.err
    assert run.config.read_text() == before


def test_a_run_that_is_being_trained_is_not_resumed(here: Path, call: Call) -> None:
    process = start(here, "trainer.steps=100000")
    run = begun()
    done = call("resume", run.id)
    process.kill()
    process.wait()
    assert done.code == 2
    assert "another process" in done.err


@pytest.mark.parametrize("damage", ["truncate", "other"])
def test_a_damaged_checkpoint_is_an_error_not_a_traceback(damage: str, here: Path, call: Call) -> None:
    call("train", "trainer.epochs=1", "trainer.figures=false", "tracking.enabled=false")
    run = all_runs()[0]
    content = run.last.read_bytes()
    run.last.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"not a checkpoint")
    done = call("resume", run.id, "trainer.epochs=2")
    assert done.code == 2
    assert "last.pt" in done.err


def test_verify_resume_proves_it(call: Call) -> None:
    done = call("verify-resume", "trainer.steps=60", "+dataset.augment.shift=1")
    assert done.code == 0, done.err
    assert "equal, bit for bit" in done.out


def test_verify_resume_names_the_first_tensor_that_differs(here: Path, call: Call) -> None:
    (here / "lab.py").write_text(
        "import time, torch\n"
        "from torch import nn\n"
        "class Restless(nn.Module):\n"
        "    def __init__(self, outputs: int):\n"
        "        super().__init__()\n"
        "        self.linear = nn.Linear(64, outputs)\n"
        "    def forward(self, x):\n"
        "        noise = time.time() % 1 if self.training else 0.0\n"
        "        return self.linear(x.flatten(1)) * (1 + noise)\n"
    )
    (here / "conf" / "model").mkdir(parents=True)
    (here / "conf" / "model" / "restless.yaml").write_text("_target_: lab.Restless\noutputs: null\n")
    done = call("verify-resume", "model=restless", "trainer.steps=30")
    assert done.code == 1
    assert "NOT equal" in done.out
    assert "linear" in done.out
