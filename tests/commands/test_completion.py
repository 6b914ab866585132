"""Completion, as each real shell does it when a person presses the tab key."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlrun.commands.completion import complete
from tests.facts import refuses

SCRIPT = Path(sys.executable).with_name("dlrun")


def needs(shell: str) -> pytest.MarkDecorator:
    missing = next((name for name in (shell, str(SCRIPT)) if not shutil.which(name)), None)
    return pytest.mark.skipif(missing is not None, reason=f"{missing} is not installed")


@pytest.fixture
def home(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and the dlrun of this environment as the first on the path."""
    monkeypatch.setenv("PATH", f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("TERM", "dumb")
    return here


def typed(shell: list[str], keys: list[str], until: str) -> str:
    """Type `keys` into an interactive shell on a terminal of its own; return what `until` matched on it."""
    master, slave = pty.openpty()
    process = subprocess.Popen(shell, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    seen, end = "", time.monotonic() + 60
    try:
        for key in keys:
            os.write(master, key.encode())
        while time.monotonic() < end:
            if select.select([master], [], [], 0.2)[0]:
                seen += os.read(master, 65536).decode(errors="replace")
            if found := re.search(until, seen, re.MULTILINE):
                return found[0].strip()
        raise AssertionError(f"`{until}` did not appear in:\n{seen}")
    finally:
        process.kill()
        process.wait()
        os.close(master)


# control-A goes to the line's beginning: the completed line is printed instead of run
CASES = [
    ("dlrun tra\t+experi\tmni\t", r"^dlrun train \+experiment=mnist\b"),
    ("dlrun check seed=3 --cfg job model=conv\t", r"^dlrun check seed=3 --cfg job model=convnet\b"),
    ("dlrun train trainer.epo\t3", r"^dlrun train trainer\.epochs=3"),
    ("dlrun verify-re\toptimizer=sg\t", r"^dlrun verify-resume optimizer=sgd"),
]


@needs("bash")
@pytest.mark.parametrize(("keys", "until"), CASES)
def test_bash(home: Path, keys: str, until: str) -> None:
    install = 'PS1="> "; eval "$(dlrun -sc install=bash)"\n'
    typed(["bash", "--norc", "--noprofile", "-i"], [install, keys, "\x01echo ", "\n"], until)


@needs("zsh")
@pytest.mark.parametrize(("keys", "until"), CASES)
def test_zsh(home: Path, keys: str, until: str) -> None:
    install = 'PS1="> "; bindkey -e; eval "$(dlrun -sc install=zsh)"\n'
    typed(["zsh", "-f", "-i"], [install, keys, "\x01echo ", "\n"], until)


@needs("fish")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dlrun tra", "train"),
        ("dlrun train +experiment=mni", "+experiment=mnist"),
        ("dlrun check seed=3 --cfg job model=conv", "model=convnet"),
        ("dlrun train trainer.epo", "trainer.epochs="),
    ],
)
def test_fish(home: Path, line: str, expected: str) -> None:
    script = f"dlrun -sc install=fish | source; complete -C '{line}'"
    done = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[0].split("\t")[0] == expected, done.stderr


@needs("bash")
def test_an_uninstalled_completion_is_gone(home: Path) -> None:
    script = (
        'eval "$(dlrun -sc install=bash)"; complete -p dlrun; eval "$(dlrun -sc uninstall=bash)"; complete -p dlrun'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert "_dlrun" in done.stdout
    assert "no completion specification" in done.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dlrun ver", ["verify-resume"]),
        ("dlrun --v", ["--version"]),
        ("dlrun list sched", ["schedule"]),
        ("dlrun list fine", ["finetune"]),
        ("dlrun list model realn", ["realnvp"]),
        ("dlrun data fashion", ["fashion_mnist"]),
        ("dlrun train --mul", ["--multirun"]),
        ("dlrun train modle=mlp see", []),  # wrong before: nothing, and no noise
        ("dlrun train hydra.run", ["hydra.run.", "hydra.runtime."]),
        ("dlrun", []),
    ],
)
def test_words_that_may_follow(here: Path, line: str, expected: list[str]) -> None:
    assert complete(line) == expected


def test_a_fresh_line_offers_groups_and_keys_but_not_hydras(here: Path) -> None:
    found = complete("dlrun train ")
    assert {"model=", "model.", "+experiment=", "seed=", "trainer."} <= {*found}
    assert not [word for word in found if "hydra" in word]


def test_choices_of_the_current_folder_are_offered(here: Path) -> None:
    (here / "conf" / "model").mkdir(parents=True)
    (here / "conf" / "model" / "mine.yaml").write_text("_target_: mine.Net\n")
    assert complete("dlrun train model=mi") == ["model=mine"]


def test_runs_are_offered_by_their_ids(here: Path) -> None:
    (here / "outputs/runs/2026-01-01/120000-digits-mlp-bcdfghjk/.hydra").mkdir(parents=True)
    assert complete("dlrun resume bcd") == ["bcdfghjk"]


def test_sweeps_options_and_files_are_offered(here: Path) -> None:
    run = here / "outputs/runs/2026-01-01/120000-digits-mlp-bcdfghjk"
    sweep = here / "outputs/sweeps/2026-01-01/120000-digits-mlp-bcdwwwww"
    (run / ".hydra").mkdir(parents=True)
    sweep.mkdir(parents=True)
    (sweep / "manifest.json").write_text("{}")
    (here / "odd.csv").touch()
    for command in ("resume", "test", "compare"):
        assert complete(f"dlrun {command} bcd") == ["bcdfghjk", "bcdwwwww"]
    assert complete("dlrun report bcd") == ["bcdwwwww"]
    assert complete("dlrun report --f") == ["--force"]
    assert complete("dlrun runs --so") == ["--sort"]
    assert "odd.csv" in complete("dlrun predict bcdfghjk ")
    assert complete("dlrun test out") == ["outputs/"]
    assert complete("dlrun test outputs/") == ["outputs/runs/", "outputs/sweeps/"]


def test_an_unknown_shell_is_the_users_mistake(call) -> None:
    called = call("-sc", "install=bsh")
    refuses(called, "Did you mean `bash`")
