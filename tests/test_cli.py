"""The first word of the command line, and the commands that only show something."""

from __future__ import annotations

import errno
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from dlrun import __version__, cli
from dlrun.commands import COMMANDS, module_of
from dlrun.config import choices
from dlrun.errors import RunError, UserError
from tests.facts import refuses, says


def test_help_lists_every_command(call) -> None:
    called = call("--help")
    assert called.code == 0
    assert all(f"  {name} " in called.out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_module_with_a_main(name: str) -> None:
    assert callable(importlib.import_module(module_of(name)).main)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(call, name: str) -> None:
    called = call(name, "--help")
    assert called.code == 0, called.err
    says(called.out, f"dlrun {name}")
    assert not called.err


def test_version(call) -> None:
    assert call("--version").out == f"dlrun {__version__}\n"


def test_torchrun_is_refused_with_one_message(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, told in (("0", "without torchrun"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        called = call("verify-resume", "seed=1")
        assert called.code == 2
        assert (told in called.err) if told else not called.err
        assert not called.out
    # of one process it is one run
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert call("train", "--cfg", "job").code == 0


def test_no_command_is_a_usage_error_that_shows_the_help(call) -> None:
    called = call()
    assert called.code == 2
    says(called.out, "commands:")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["trian"], "Did you mean `train`?"),
        (["trian"], "The commands are: train, resume,"),
        (["optimizer.lr=0.1", "seed=3"], "type `dlrun train optimizer.lr=0.1 seed=3`"),
        (["-m", "seed=1,2"], "type `dlrun train -m seed=1,2`"),
        (["list", "modle"], "Did you mean `model`?"),
        (["train", "modle=mlp"], "Did you mean `model`?"),
    ],
)
def test_a_misspelt_word_is_told_with_what_to_type(call, argv: list[str], words: str) -> None:
    called = call(*argv)
    refuses(called, words)
    assert not called.out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("no"), 2),
        (RunError("no"), 1),
        (KeyboardInterrupt(), 130),
        (PermissionError(errno.EROFS, "Read-only file system", "report"), 2),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "report/runs.csv"), 2),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300), 2),
    ],
    ids=repr,
)
def test_exit_codes(call, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    def fail(argv: list[str]) -> int:
        raise error

    monkeypatch.setattr(importlib.import_module("dlrun.commands.list"), "main", fail)
    called = call("list")
    assert called.code == code
    assert "Traceback" not in called.err
    says(called.err, str(getattr(error, "filename", None) or ""))


def test_the_folders_modules_are_found_after_the_installed(here: Path, call) -> None:
    (here / "a_module_of_mine.py").write_text("x = 1\n")
    (here / "json.py").write_text("raise SystemExit('the wrong json')\n")
    call("--version")
    assert sys.path[-1] == str(here)
    assert importlib.import_module("a_module_of_mine").x == 1


def test_a_process_of_its_own_does_the_same(dlrun) -> None:
    called = dlrun("trian")
    assert called.code == 2
    assert called.err.startswith("dlrun: There is no command `trian`.")


def test_a_reader_that_stops_early_is_no_error(here: Path) -> None:
    program = f"{sys.executable} -m dlrun list model | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full (Linux)")
@pytest.mark.parametrize("command", ["list model", "runs --json", "--help"])
def test_a_full_disk_under_the_output_is_one_message(here: Path, command: str) -> None:
    with Path("/dev/full").open("w") as full:
        program = [sys.executable, "-m", "dlrun", *command.split()]
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "dlrun: The output: No space left on device. Is its disk full?\n"


def test_closed_streams_are_no_error(here: Path) -> None:
    command = f"{sys.executable} -m dlrun train trainer.fast=true trainer.figures=false tracking.enabled=false"
    done = subprocess.run(["bash", "-c", f"{command} <&- >&- 2>&-"], cwd=here)
    assert done.returncode == 0


def test_the_last_lines_of_a_training_may_stay_unread(here: Path) -> None:
    # the uploader's line comes when the log is closed: `dlrun train | head`
    program = f"{sys.executable} -m dlrun train dataset=moons trainer.epochs=1 trainer.figures=false"
    done = subprocess.run(
        ["bash", "-c", f"{program} | sed '/^  outputs/q'; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_list_shows_the_groups(call) -> None:
    called = call("list")
    assert called.code == 0
    assert "mlp" in next(line for line in called.out.splitlines() if line.startswith("model"))
    # of Hydra's own groups those that a sweep is made of
    assert [line.split()[0] for line in called.out.splitlines() if line.startswith("hydra")] == [
        "hydra/launcher",
        "hydra/sweeper",
    ]


@pytest.mark.parametrize("group", ["dataset", "model", "loss", "optimizer", "schedule", "experiment"])
def test_list_describes_every_choice(call, group: str) -> None:
    called = call("list", group)
    assert called.code == 0
    for name, choice in choices.groups()[group].items():
        assert choices.describe(choice), f"{choice.path} has no head comment, and its target no docstring"
        assert f"{name} " in called.out


def test_list_draws_schedules(call) -> None:
    called = call("list", "schedule")
    says(called.out, "cosine", "█")


def test_list_marks_the_users_own(here: Path, call) -> None:
    (here / "conf/model").mkdir(parents=True)
    (here / "conf/model/mine.yaml").write_text("_target_: mine.Net\n")
    (here / "mine.py").write_text('class Net:\n    """A net of mine.\n\n    More.\n    """\n')
    says(call("list").out, "mine*")
    says(call("list", "model").out, "A net of mine. (yours:")


def test_usage_is_one_screen() -> None:
    assert len(cli.usage().splitlines()) <= 24
