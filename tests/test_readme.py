"""What the README tells people to type works."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from dlrun.commands import COMMANDS
from tests.conftest import Called

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TYPED = re.findall(r"^ {4}dlrun (.*?)(?: {2,}#.*)?$", README, re.MULTILINE)
TRAINED = [line for line in TYPED if line.startswith("train") and " -m " not in line]
FILES = ("mnist", "shakespeare", "wikitext2", "path=")
EXPERIMENTS = re.findall(r"^\| `(\w+)[^`]*` \|", README.partition("## What you can rely on")[0], re.MULTILINE)


def test_every_command_is_one() -> None:
    assert len(TYPED) > 10
    assert {line.split()[0] for line in TYPED} <= {*COMMANDS}


@pytest.mark.parametrize("line", TRAINED)
def test_what_is_trained_can_be_composed(line: str, call: Callable[..., Called]) -> None:
    done = call(*shlex.split(line), "--cfg", "job")
    assert done.code == 0, done.err


@pytest.mark.parametrize("line", [line for line in TRAINED if not any(name in line for name in FILES)])
def test_what_needs_no_files_trains(line: str, call: Callable[..., Called]) -> None:
    done = call(*shlex.split(line), "trainer.fast=true", "tracking.enabled=false", "trainer.figures=false")
    assert done.code == 0, done.err


def test_the_table_has_every_experiment() -> None:
    assert {*EXPERIMENTS} == {path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")}


def test_every_file_that_is_linked_is_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_make_has_the_targets_that_are_named() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{name}:" in makefile for name in re.findall(r"make ([a-z]+)", README))
