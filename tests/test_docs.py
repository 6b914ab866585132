"""The commands that README and docs/ tell people to type work, and their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from dlrun.commands import COMMANDS
from tests.conftest import Called

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
TYPED = re.findall(r"^ {4}dlrun (.*?)(?: {2,}#.*)?$", TEXT.replace("\\\n", ""), re.MULTILINE)
TRAINED = list(dict.fromkeys(line for line in TYPED if line.startswith("train") and " -m " not in line))
FILES = ("mnist", "cifar10", "shakespeare", "wikitext2", "path=", "scaling_laws")
# a study trains many runs: tests/studies has them
STUDIES = ("polynomial_capacity", "depth")
QUICK = [line for line in TRAINED if not any(f"={name}" in line or name in line for name in (*FILES, *STUDIES))]


def test_every_command_is_one() -> None:
    assert len(TYPED) > 20
    assert {line.split()[0] for line in TYPED} <= {*COMMANDS}


@pytest.mark.parametrize("line", TRAINED)
def test_each_training_can_be_composed(line: str, call: Callable[..., Called]) -> None:
    done = call(*shlex.split(line), "--cfg", "job")
    assert done.code == 0, done.err


@pytest.mark.parametrize("line", QUICK)
def test_each_training_without_files_trains(line: str, call: Callable[..., Called]) -> None:
    done = call(*shlex.split(line), "trainer.fast=true", "tracking.enabled=false", "trainer.figures=false")
    assert done.code == 0, done.err


def test_the_table_has_every_experiment() -> None:
    tables = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    named = {*re.findall(r"^\| `(\w+)[^`]*` \|", tables, re.MULTILINE)}
    assert named == {path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml")}


def test_every_link_leads_somewhere() -> None:
    broken = []
    for page in (*PAGES, ROOT / "examples" / "README.md"):
        for target in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text(encoding="utf-8")):
            file, _, anchor = target.partition("#")
            linked = page.parent / file
            if not linked.exists() or (anchor and anchor not in anchors(linked)):
                broken.append((page.name, target))
    assert not broken


def anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub writes them in links."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_listed() -> None:
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert {*re.findall(r"\]\((\w+\.md)\)", text)} == {page.name for page in (ROOT / "docs").glob("*.md")} - {
        "README.md"
    }


def test_every_file_that_the_architecture_names_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = {path.name for path in (ROOT / "dlrun").iterdir() if path.is_dir()}
    named = {name for name in re.findall(r"[\w/]+", text) if "/" in name and name.split("/")[0] in rooms}
    named = {name for name in named if "NAME" not in name}
    assert len(named) > 30
    missing = [n for n in named if not (ROOT / "dlrun" / n).exists() and not (ROOT / "dlrun" / f"{n}.py").exists()]
    assert not missing


def test_every_named_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {
        *re.findall(r"`?make ([a-z-]+)", "\n".join(re.findall(r"`make [a-z-]+`|^ {4}make .*", TEXT, re.MULTILINE)))
    }
    assert named
    assert all(f"\n{name}:" in makefile for name in named)
