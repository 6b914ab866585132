"""A run that is stopped, however it is stopped, goes on as if it had not been."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dlrun.engine import loop
from dlrun.runs.differences import differences
from dlrun.runs.interrupt import EarlyInterrupt, Interrupt
from dlrun.storage import checkpoint
from dlrun.storage.files.waiting import wait_until
from dlrun.storage.journal import curves, read
from dlrun.storage.lookup import all_runs
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.facts import refuses, says
from tests.processes import Process
from tests.processes import run as run_process
from tests.summaries import summarise

Call = Callable[..., Called]
RUN = [
    *("train", "trainer.steps=400", "model.dropout=0.2", "+dataset.augment.shift=1"),
    *("trainer.log_every=1", "trainer.figures=false", "tracking.enabled=false"),
]


def start(here: Path, *overrides: str) -> Process:
    command = [sys.executable, "-m", "dlrun", *RUN, *overrides]
    return Process(command, cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


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
    run_process([sys.executable, "-m", "dlrun", *RUN], cwd=folder, env=environment, check=True, capture_output=True)
    return RunDir(next(folder.glob("outputs/runs/*/*/.hydra")).parent)


@pytest.mark.parametrize(("after", "every"), [(0, "1000"), (137, "50"), (260, "7")])
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
    assert ("val/loss" in run.summary().metrics) == (status == "pruned")
    assert run.summary().test_reads == 0
    assert call("resume", run.id).code == 0
    assert list(differences(whole, run)) == []


def test_a_longer_run_is_the_run_that_was_longer_from_the_start(call: Call) -> None:
    quick = ("trainer.figures=false", "tracking.enabled=false", "trainer.log_every=1")
    call("train", "trainer.epochs=2", *quick)
    call("train", "trainer.epochs=4", *quick)
    short, long = all_runs()
    says(call("resume", short.id).out, "longer")
    done = call("resume", short.id, "trainer.epochs=4")
    assert done.code == 0, done.err
    assert list(differences(short, long)) == []
    assert short.summary().test_reads == 2
    assert OmegaConf.load(short.config).trainer.epochs == 4


MOONS = ("dataset=moons", "model.width=4", "trainer.figures=false", "tracking.enabled=false")


def test_a_stretched_schedule_is_said(call: Call) -> None:
    short = ("train", "dataset=moons", "trainer.steps=10", "trainer.figures=false", "tracking.enabled=false")
    for schedule, said in (("cosine", True), ("constant", False)):
        assert call(*short, f"schedule={schedule}").code == 0
        done = call("resume", all_runs()[-1].id, "trainer.steps=20")
        assert done.code == 0
        assert ("stretched from 10 to 20 steps" in done.out) == said


def test_a_run_that_patience_ended_is_told_about_patience(call: Call) -> None:
    quick = ("dataset=moons", "tracking.enabled=false", "trainer.figures=false")
    assert call("train", *quick, "trainer.epochs=9", "trainer.patience=1", "optimizer.lr=0").code == 0
    run = all_runs()[-1]
    before = run.summary().steps
    done = call("resume", run.id, "trainer.epochs=12")
    says(done.out, "trainer.patience=1", f"`dlrun resume {run.id} trainer.patience=null trainer.epochs=12`")
    assert run.summary().steps == before
    # the words that it says to type
    assert call("resume", run.id, "trainer.patience=null", "trainer.epochs=12").code == 0
    assert run.summary().steps == 4 * (before or 0) * 12 // (4 * 2)


def test_a_run_that_began_with_given_weights_resumes_with_them(call: Call) -> None:
    call("train", "trainer.steps=5", *MOONS)
    (base,) = all_runs()
    call("train", f"init_from={base.id}", "trainer.steps=6", "trainer.evaluate_every=3", *MOONS)
    whole = all_runs()[-1]
    broken = RunDir(whole.path.with_name("000000-moons-broken"))
    shutil.copytree(whole.path, broken.path)
    # as it is before the first checkpoint
    shutil.rmtree(broken.last.parent)
    broken.journal.write_text("")
    summarise(broken, status="killed")
    assert call("resume", broken.id).code == 0
    assert list(differences(whole, broken)) == []
    assert broken.summary().identity == whole.summary().identity
    # made longer, it is the run that was longer from the start, wherever its weights are by then
    call("train", f"init_from={base.best}", "trainer.steps=9", "trainer.evaluate_every=3", *MOONS)
    longer = next(run for run in all_runs() if run.summary().steps == 9)
    shutil.rmtree(base.path)
    assert call("resume", broken.id, "trainer.steps=9").code == 0
    assert list(differences(longer, broken)) == []
    assert longer.summary().identity == broken.summary().identity != whole.summary().identity


def test_other_weights_to_start_from_are_another_identity(here: Path, call: Call) -> None:
    for seed in (1, 2):
        call("train", "trainer.steps=5", f"seed={seed}", *MOONS)
    first, second = all_runs()
    for source in (first.best, second.best, first.best):
        shutil.copy(source, here / "weights.pt")
        call("train", "init_from=weights.pt", "trainer.steps=1", *MOONS)
    a, b, again = (run.summary().identity for run in all_runs()[2:])
    assert a == again != b


def test_a_change_is_written_down_when_training_begins_and_not_before(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("train", "trainer.epochs=2", *MOONS)
    (run,) = all_runs()
    before = run.config.read_bytes()
    says(call("resume", run.id, "trainer.epochs=1").out, "is finished, and `trainer.epochs=1` asks for no further step")
    assert run.config.read_bytes() == before
    with monkeypatch.context() as patch:
        patch.setattr("dlrun.runs.reload.rebuild.assemble", lambda plain, **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            call("resume", run.id, "trainer.epochs=3")
    assert run.config.read_bytes() == before
    with run.hold():
        assert call("resume", run.id, "trainer.epochs=3").code == 2
    assert run.config.read_bytes() == before
    assert call("resume", run.id, "trainer.epochs=3").code == 0
    assert OmegaConf.load(run.config).trainer.epochs == 3


def test_a_new_length_rules_whatever_ruled_before(call: Call) -> None:
    call("train", "trainer.steps=3", *MOONS)
    (run,) = all_runs()
    done = call("resume", run.id, "trainer.epochs=2")
    says(done.out, "trainer.steps=3 no longer holds: trainer.epochs")
    epoch = -(-run.summary().data["train"] // 64)
    assert run.summary().steps == 2 * epoch
    done = call("resume", run.id, "trainer.minutes=0.005")
    minutes = run.summary().steps
    assert minutes >= 2 * epoch
    says(call("resume", run.id, "trainer.minutes=0.005").out, "is finished")
    done = call("resume", run.id, f"trainer.steps={minutes + 7}")
    says(done.out, "trainer.minutes=0.005 no longer holds")
    assert run.summary().steps == minutes + 7


STREAMED = """
import time
import torch
from torch.utils.data import Dataset
from dlrun.datasets import from_datasets
class Slow(Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, i):
        time.sleep(0.002)
        return torch.rand(4), i % 2
def slow():
    return from_datasets("slow", Slow(), validation_size=8, task="classification", classes=2)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_all_processes_of_a_streamed_run_stops_it_saved(
    number: signal.Signals, code: int, here: Path
) -> None:
    (here / "lab.py").write_text(STREAMED)
    (here / "conf" / "dataset").mkdir(parents=True)
    (here / "conf" / "dataset" / "slow.yaml").write_text("_target_: lab.slow\n")
    overrides = ["dataset=slow", "trainer.batch_size=8", "trainer.workers=2", "trainer.log_every=1", *MOONS[1:]]
    command = [sys.executable, "-m", "dlrun", "train", "trainer.epochs=1000", *overrides]
    process = Process(command, cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    run = begun()
    wait_until(lambda: steps(run) >= 3, 60, poll=0.01)
    os.killpg(process.pid, number)
    assert process.wait() == code
    assert run.status() == "killed"
    assert run.last.exists()


@pytest.mark.parametrize(("every", "told"), [("8", "step 16 is saved"), ("1000", "before the first checkpoint")])
def test_a_second_ctrl_c_says_which_step_is_saved(
    every: str, told: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop.Training.step

    def twice(training: loop.Training, *arguments: Any) -> Any:
        taken.append(1)
        if len(taken) == 20:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return step(training, *arguments)

    taken: list[int] = []
    monkeypatch.setattr(loop.Training, "step", twice)
    done = call("train", *MOONS, "trainer.compile=false", f"trainer.checkpoint_every={every}")
    run = all_runs()[0]
    assert done.code == 130 and run.status() == "killed"
    says(done.out, told, f"dlrun resume {run.id}")


def test_an_error_after_a_request_to_stop_is_that_stop(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(*args: object, **named: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise RuntimeError("a worker was killed by the same signal")

    monkeypatch.setattr("dlrun.engine.loop.train", torn)
    assert call("train", *MOONS).code == 143
    assert all_runs()[0].summary().status == "killed"
    assert "killed by the same" in all_runs()[0].summary().error


@pytest.mark.parametrize(
    ("override", "said"),
    [("optimizer.lr=1", "init_from"), ("trainer.epoch=4", "trainer.epochs"), ("trainer.epochs=abc", "number")],
)
def test_what_cannot_be_changed_is_refused_and_changes_nothing(override: str, said: str, call: Call) -> None:
    call("train", "trainer.epochs=1", "trainer.figures=false", "tracking.enabled=false")
    run = all_runs()[0]
    before = run.config.read_text()
    done = call("resume", run.id, override)
    refuses(done, said)
    assert run.config.read_text() == before


def test_a_run_that_is_being_trained_is_not_resumed(here: Path, call: Call) -> None:
    process = start(here, "trainer.steps=100000")
    run = begun()
    done = call("resume", run.id)
    process.kill()
    process.wait()
    refuses(done, "another process")


@pytest.mark.parametrize("damage", ["truncate", "other"])
def test_a_damaged_checkpoint_is_an_error_not_a_traceback(damage: str, here: Path, call: Call) -> None:
    call("train", "trainer.epochs=1", "trainer.figures=false", "tracking.enabled=false")
    run = all_runs()[0]
    content = run.last.read_bytes()
    run.last.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"not a checkpoint")
    done = call("resume", run.id, "trainer.epochs=2")
    refuses(done, "last.pt")


def test_verify_resume_proves_it(verify_resume: Call) -> None:
    done = verify_resume("trainer.steps=60", "+dataset.augment.shift=1")
    assert done.code == 0, done.err
    says(done.out, "equal, bit for bit")


def test_verify_resume_names_the_first_tensor_that_differs(here: Path, verify_resume: Call) -> None:
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
    done = verify_resume("model=restless", "trainer.steps=30")
    assert done.code == 1
    says(done.out, "NOT equal", "linear")


def test_durations_are_of_no_clock_that_can_be_set(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    days = itertools.count()
    # each look at the clock is a day before the last
    monkeypatch.setattr("time.time", lambda: 1.8e9 - 86_400 * next(days))
    call("train", "trainer.epochs=1", "trainer.figures=false", "tracking.enabled=false")
    summary = all_runs()[0].summary()
    assert 0 <= (summary.train_seconds or 0) <= summary.seconds < 600


def test_the_time_of_a_killed_process_is_that_of_its_checkpoint(call: Call) -> None:
    call("train", "trainer.epochs=2", "trainer.figures=false", "tracking.enabled=false")
    run = all_runs()[0]
    with run.edit_summary() as summary:
        # what SIGKILL leaves
        summary.update({"status": "running", "seconds": None, "train_seconds": None})
    content = checkpoint.load(run.last)
    content.state["train_seconds"] = 5000.0
    checkpoint.save(run.last, content)
    assert call("resume", run.id, "trainer.epochs=3").code == 0
    summary = run.summary()
    assert 5000 < (summary.train_seconds or 0) <= summary.seconds


def test_a_run_that_fails_says_how_long_it_took(call: Call) -> None:
    call("train", *MOONS, "optimizer.lr=1e30", "trainer.log_every=1", "trainer.epochs=3")
    summary = all_runs()[0].summary()
    assert summary.status == "failed"
    assert summary.seconds > 0 and summary.steps


def test_an_error_in_a_resumed_run_is_one_message(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    call("train", "trainer.epochs=1", "trainer.figures=false", "tracking.enabled=false")
    run = all_runs()[0]

    def fail(*arguments: object) -> None:
        raise ValueError("in the user's model")

    monkeypatch.setattr("dlrun.engine.loop.train", fail)
    done = call("resume", run.id, "trainer.epochs=2")
    assert done.code == 1 and "Traceback" not in done.err
    assert "ValueError: in the user's model" in done.err and str(run.log) in done.err
    assert "Traceback" in run.log.read_text()
    assert run.summary().status == "failed"


def test_ctrl_c_that_a_library_swallows_while_it_is_imported_ends_the_run() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with EarlyInterrupt():
            with suppress(BaseException):
                signal.raise_signal(signal.SIGINT)
            with Interrupt() as interrupt:
                assert interrupt.signal == signal.SIGINT
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_values_of_the_environment_are_the_runs_from_then_on(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE", "0.01")
    rate = 'optimizer.lr="${oc.decode:${oc.env:RATE}}"'
    quick = ("dataset=moons", "tracking.enabled=false", "trainer.figures=false", "trainer.log_every=1")
    assert call("train", *quick, rate, "trainer.steps=5").code == 0
    run = all_runs()[-1]
    assert OmegaConf.load(run.config).optimizer.lr == 0.01
    # beside it, to read, what was typed
    says(run.config.with_name("composed.yaml").read_text(), "oc.env:RATE")
    monkeypatch.setenv("RATE", "0.5")
    assert call("resume", run.id, "trainer.steps=9").code == 0
    assert {value for _, value in curves(run.journal)["lr"]} == {0.01}
    monkeypatch.delenv("RATE")
    assert call("test", run.id).code == 0


def test_a_password_of_the_environment_does_not_land_in_the_folder(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "hunter2hunter2")
    monkeypatch.setenv("PLACE", "https://ada:hunter3hunter3@example.org")
    tags = ("+tracking.tags.a=${oc.env:API_TOKEN}", "+tracking.tags.b=${oc.env:PLACE}/x", "+tracking.tags.c=${seed}")
    quick = ("dataset=moons", "tracking.enabled=false", "trainer.figures=false", "trainer.steps=2")
    assert call("train", *quick, *tags).code == 0
    run = all_runs()[-1]
    texts = [path.read_text() for path in run.path.rglob("*") if path.is_file() and path.suffix != ".pt"]
    assert not any("hunter" in text for text in texts)
    assert OmegaConf.to_container(OmegaConf.load(run.config).tracking.tags) == {
        "a": "${oc.env:API_TOKEN}",
        "b": "${oc.env:PLACE}/x",
        "c": 0,
    }


def test_a_relative_path_is_found_from_elsewhere_and_after_a_move(
    here: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = here / "lab"
    lab.mkdir()
    monkeypatch.chdir(lab)
    (lab / "book.txt").write_text(" ".join(map(str, range(3000))))
    text = ("+experiment=text", "dataset=text", "dataset.path=book.txt", "model.size=nano", "dataset.context=16")
    quick = ("trainer.batch_size=8", "trainer.steps=2", "tracking.enabled=false", "trainer.figures=false")
    assert call("train", *text, *quick).code == 0
    run = all_runs()[-1]
    assert OmegaConf.load(run.config).dataset.path == str(lab / "book.txt")
    identity = run.summary().identity_parts["config"]
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    done = call("resume", str(run.path), "trainer.steps=4")
    assert done.code == 0, done.err
    # the whole tree is moved
    moved = here / "moved"
    lab.rename(moved)
    there = RunDir(moved / run.path.relative_to(lab))
    done = call("resume", str(there.path), "trainer.steps=2000", "trainer.steps=5")
    assert done.code == 0, done.err
    # the path counts as it was given
    monkeypatch.chdir(moved)
    assert call("train", *text, *quick, "trainer.steps=5").code == 0
    assert all_runs()[-1].summary().identity_parts["config"] == there.summary().identity_parts["config"] != identity


def test_the_same_command_finds_its_unfinished_run(call: Call, here: Path) -> None:
    (here / "fragile.py").write_text(
        "import os\nfrom torch import nn\n\n\nclass Fragile(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.steps, self.linear = 0, nn.Linear(64, 10)\n\n"
        "    def forward(self, x):\n        self.steps += self.training\n"
        "        if self.steps > 12 and not os.path.exists('mended'):\n            raise ValueError('an accident')\n"
        "        return self.linear(x.flatten(1))\n"
    )
    command = (
        "train",
        "resume=auto",
        "model._target_=fragile.Fragile",
        "trainer.steps=20",
        "trainer.checkpoint_every=5",
    )
    command = (*command, "tracking.enabled=false", "trainer.figures=false", "trainer.threads=1")
    assert call(*command).code == 1
    (run,) = all_runs()
    # another run is not taken for it
    assert call(*command, "seed=1").code == 1
    assert len(all_runs()) == 2

    (here / "mended").touch()
    done = call(*command)
    says(done.out, "resume=auto", str(run.path))
    assert done.code == 0, done.err
    assert run.status() == "finished"
    # nothing is left to go on with: a new run, with the same result
    assert call(*command).code == 0
    assert len(all_runs()) == 3
    assert all_runs()[-1].summary().metrics == run.summary().metrics


def test_slurm_sends_several_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with Interrupt(prunes=False) as interrupt:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
            signal.raise_signal(number)
        assert interrupt.signal == signal.SIGTERM
    # a search prunes its jobs there too
    with Interrupt(prunes=True) as interrupt:
        signal.raise_signal(signal.SIGUSR1)
        assert interrupt.signal == signal.SIGUSR1
