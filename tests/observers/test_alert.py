"""A command at the end of a run: when it is run, what it is told, and whose it must be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from dlrun.config import trust
from dlrun.storage import run_config
from dlrun.storage.lookup import all_runs, all_sweeps
from dlrun.storage.rundir import RunDir
from tests.conftest import Called
from tests.facts import refuses, says

Call = Callable[..., Called]
QUICK = ("tracking.enabled=false", "trainer.figures=false", "evaluation.test=never", "trainer.steps=2")
TELL = """#!/bin/sh
printf '%s\\n' "$1" "$DLRUN_RUN_ID" "$DLRUN_RUN_STATUS" "$DLRUN_RUN_STEP" >> told
printf '%s\\n' "$DLRUN_RUN_ERROR" "$DLRUN_RUN_METRICS" >> told
"""


@pytest.fixture
def tell(here: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The override of an alert that writes what it is told into `told`."""
    monkeypatch.setenv(trust.VARIABLE, "")
    (here / "tell").write_text(TELL)
    (here / "tell").chmod(0o755)
    return "observers.alert.command='./tell {name}:{status}:{other}'"


def told() -> list[str]:
    return Path("told").read_text().splitlines()


def newest() -> RunDir:
    return all_runs()[-1]


def test_a_run_that_ends_is_told_of(tell: str, call: Call) -> None:
    assert call("train", "+observer=alert", tell, "name=a", *QUICK).code == 0
    first, run, status, step, error, metrics = told()
    assert (first, run, status, step, error) == ("a:finished:{other}", newest().id, "finished", "2", "")
    assert json.loads(metrics) == newest().summary().metrics


def test_a_run_that_diverges_is_told_of(tell: str, call: Call) -> None:
    diverging = ("optimizer=sgd", "optimizer.lr=1e30", "trainer.steps=9")
    assert call("train", "+observer=alert", tell, *QUICK, *diverging).code == 1
    assert told()[2] == "diverged"
    assert "NonFinite" in told()[4]
    Path("told").unlink()
    assert call("train", "+observer=alert", tell, "observers.alert.when=[finished]", *QUICK, *diverging).code == 1
    assert not Path("told").exists()


@pytest.mark.parametrize(
    ("command", "facts"),
    [
        ("nosuch", ["nosuch", "No such file"]),
        ("sh -c \\'echo bad >&2; exit 3\\'", ["exit code 3", "bad"]),
        ("sleep 60", ["sleep 60", "0.1 s"]),
    ],
)
def test_its_failure_is_one_line(tell: str, call: Call, command: str, facts: list[str]) -> None:
    done = call(
        "train", "+observer=alert", f"observers.alert.command='{command}'", "observers.alert.timeout=0.1", *QUICK
    )
    assert done.code == 0
    assert newest().summary().status == "finished"
    lines = [line for line in done.err.splitlines() if "observers.alert" in line]
    assert len(lines) == 1
    says(lines[0], *facts)


@pytest.mark.parametrize(
    ("given", "fact"),
    [
        ([], "observers.alert.command="),
        (["observers.alert.command='a \"b'"], "command"),
        (["observers.alert.command=a", "observers.alert.when=[done]"], "diverged"),
        (["observers.alert.command=a", "observers.alert.timeout=0"], "timeout"),
    ],
)
def test_mistakes(here: Path, call: Call, given: list[str], fact: str) -> None:
    refuses(call("train", "+observer=alert", *given, *QUICK), fact)
    assert not all_runs()


def received(tell: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run that somebody else has sent: its folder brings a command."""
    assert call("train", *QUICK).code == 0
    config = yaml.safe_load(newest().config.read_text())
    config["observers"] = {"alert": {"_target_": "dlrun.observers.alert.Alert", "command": "touch ran"}}
    run_config.replace(newest(), yaml.safe_dump(config))
    monkeypatch.setenv(trust.VARIABLE, "")
    return newest()


def test_a_received_command_is_not_run(tell: str, here: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    run = received(tell, call, monkeypatch)
    assert call("test", run.id).code == 0
    refused = call("resume", run.id, "trainer.steps=4")
    refuses(refused, "touch ran", "trusted=[command.")
    assert not (here / "ran").exists()
    # trust is of this very command
    name = refused.err.partition("trusted=[")[2].partition("]")[0]
    other = run_config.load(run)
    other.observers.alert.command = "touch other"
    run_config.replace(run, yaml.safe_dump(yaml.safe_load(run.config.read_text().replace("touch ran", "touch other"))))
    refuses(call("resume", run.id, "trainer.steps=4", f"trusted=[{name}]"), "touch other")
    run_config.replace(run, run.config.read_text().replace("touch other", "touch ran"))
    assert call("resume", run.id, "trainer.steps=4", f"trusted=[{name}]").code == 0
    assert (here / "ran").exists()


def test_a_command_of_ones_own_conf_is_run_again(
    tell: str, here: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = received(tell, call, monkeypatch)
    (here / "conf" / "observer").mkdir(parents=True)
    (here / "conf" / "observer" / "mine.yaml").write_text(
        "# @package observers.alert\n_target_: dlrun.observers.alert.Alert\ncommand: touch ran\n"
    )
    assert call("resume", run.id, "trainer.steps=4").code == 0
    assert (here / "ran").exists()


def test_a_command_of_a_config_dir_is_not_run(
    tell: str, tmp_path_factory: pytest.TempPathFactory, here: Path, call: Call
) -> None:
    folder = tmp_path_factory.mktemp("sent")
    (folder / "observer").mkdir()
    (folder / "observer" / "sent.yaml").write_text(
        "# @package observers.sent\n_target_: dlrun.observers.alert.Alert\ncommand: touch ran\n"
    )
    given = ("train", "--config-dir", str(folder), "+observer=sent", *QUICK)
    refuses(call(*given), "touch ran", "trusted=[command.")
    assert not (here / "ran").exists()
    assert call(*given, "observers.sent.command='touch typed'").code == 0
    assert (here / "typed").exists()


def test_a_nested_command_is_found(tell: str, here: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    run = received(tell, call, monkeypatch)
    (here / "wraps.py").write_text(
        "class Wraps:\n    def __init__(self, inner):\n        self.inner = inner\n"
        "    def on_end(self, run):\n        self.inner.on_end(run)\n"
    )
    config = yaml.safe_load(run.config.read_text())
    config["observers"] = {"mine": {"_target_": "wraps.Wraps", "inner": config["observers"]["alert"]}}
    run_config.replace(run, yaml.safe_dump(config))
    refuses(call("resume", run.id, "trainer.steps=4"), "touch ran")


def test_each_job_of_a_sweep_tells(tell: str, here: Path, call: Call) -> None:
    done = call("train", "-m", "seed=0,1", "+observer=alert", tell, *QUICK, "sweep.figures=false")
    assert done.code == 0, done.err
    # two processes write side by side
    assert {f"{all_sweeps()[-1].id}/{n}" for n in (0, 1)} <= {*told()}
