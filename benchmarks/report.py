"""A benchmark's figures with their targets, machine and commit, as Markdown."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "RESULTS.md"
INTRODUCTION = (
    "# What dlrun costs\n\n"
    "Written by `make bench`, one section a script; each names the command that gives its figures, and the machine\n"
    "and moment that gave these. Programs that are compared ran in turn, each round in another order. Figures are\n"
    "medians, their quartiles and the number of rounds in brackets; ratios and differences are taken round by round.\n"
)


@dataclass(frozen=True)
class Figure:
    """One measured quantity; `met` says whether its target is.

    `goal` names the goal of `targets.GOALS` that the figure answers, `number` the value that decides it.
    """

    what: str
    value: str
    target: str = ""
    met: bool | None = None
    goal: str = ""
    number: float | None = None


@dataclass(frozen=True)
class Section:
    """The figures of one script; `load` is the machine's load before it began."""

    name: str
    title: str
    command: str
    figures: list[Figure]
    notes: str = ""
    load: float = 0.0
    when: datetime = field(default_factory=datetime.now)

    def markdown(self) -> str:
        verdicts = {True: "met", False: "missed", None: ""}
        rows = [f"| {f.what} | {f.value} | {f.target} | {verdicts[f.met]} |" for f in self.figures]
        taken = f"{self.when:%Y-%m-%d %H:%M}, {commit()}; {machine()}, load {self.load:.1f} at the start; {versions()}"
        table = "\n".join(["| | measured | target | |", "|---|---|---|---|", *rows])
        notes = f"\n{self.notes}\n" if self.notes else ""
        return f"## {self.name}: {self.title}\n\n`{self.command}`\n\n{table}\n{notes}\n{taken}\n"


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def machine() -> str:
    """The processor and the number of its cores available."""
    import torch

    from dlrun.execution.device import describe

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{describe(torch.device('cpu'))}, {cores} cores, {platform.system()}"


def versions() -> str:
    """The versions that the figures depend on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "hydra-core", "mlflow"))
    return f"Python {platform.python_version()}, {packages}"


def commit() -> str:
    """The measured commit, and whether dlrun's files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = bool(git("status", "--porcelain", "--", "dlrun", "conf"))
    return f"commit {git('rev-parse', '--short', 'HEAD') or 'unknown'}{' with changes' if changed else ''}"


def write(section: Section, path: Path = RESULTS) -> None:
    """Write a section into the results, in place of the old one; the others stay."""
    before = path.read_text() if path.exists() else INTRODUCTION
    head, *sections = re.split(r"^(?=## )", before, flags=re.MULTILINE)
    parts = {part.split(":", 1)[0].removeprefix("## "): part.rstrip() + "\n" for part in sections}
    parts[section.name] = section.markdown()
    path.write_text("\n".join([head.rstrip() + "\n", *parts.values()]))
    write_goals(section, path.with_name("results"))


def write_goals(section: Section, folder: Path) -> None:
    """Write the figures that answer goals into `folder`; an old one that is missing now stays."""
    found = {f.goal: {"value": f.value, "number": f.number} for f in section.figures if f.goal}
    if found:
        file = folder / f"{section.name}.json"
        taken = {"when": f"{section.when:%Y-%m-%d %H:%M}", "commit": commit(), "machine": machine()}
        before = json.loads(file.read_text()) if file.exists() else {}
        folder.mkdir(exist_ok=True)
        file.write_text(json.dumps(before | {goal: told | taken for goal, told in found.items()}, indent=1) + "\n")


def read_goals(folder: Path) -> dict[str, dict[str, Any]]:
    """Read what `write_goals` wrote, by goal: value, number, section, when, commit, machine; the newest of several."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("*.json")):
        for goal, told in json.loads(file.read_text()).items():
            if told["when"] >= found.get(goal, {"when": ""})["when"]:
                found[goal] = told | {"section": file.stem}
    return found
