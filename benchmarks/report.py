"""A benchmark's figures, beside their targets and where they were taken, as Markdown."""

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
    """One measured thing; `met` says whether the target is, where there is one.

    `goal` is the name of one of `targets.GOALS`, if the figure answers that, and `number` the value that decides it.
    """

    what: str
    value: str
    target: str = ""
    met: bool | None = None
    goal: str = ""
    number: float | None = None


@dataclass(frozen=True)
class Section:
    """What one script found out. `load` is the machine's load before it began."""

    name: str
    title: str
    command: str
    figures: list[Figure]
    notes: str = ""
    load: float = 0.0
    when: datetime = field(default_factory=datetime.now)

    def markdown(self) -> str:
        """Return the section as it stands in the results."""
        verdicts = {True: "met", False: "missed", None: ""}
        rows = [f"| {f.what} | {f.value} | {f.target} | {verdicts[f.met]} |" for f in self.figures]
        taken = f"{self.when:%Y-%m-%d %H:%M}, {commit()}; {machine()}, load {self.load:.1f} at the start; {versions()}"
        table = "\n".join(["| | measured | target | |", "|---|---|---|---|", *rows])
        notes = f"\n{self.notes}\n" if self.notes else ""
        return f"## {self.name}: {self.title}\n\n`{self.command}`\n\n{table}\n{notes}\n{taken}\n"


def load() -> float:
    """Return how many processes wanted the machine over the last minute."""
    return os.getloadavg()[0]


def machine() -> str:
    """Return the processor and how many of its cores there are for us."""
    import torch

    from dlrun.execution.device import describe

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{describe(torch.device('cpu'))}, {cores} cores, {platform.system()}"


def versions() -> str:
    """Return the versions that the figures depend on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "hydra-core", "mlflow"))
    return f"Python {platform.python_version()}, {packages}"


def commit() -> str:
    """Return the commit that was measured, and whether dlrun's files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = bool(git("status", "--porcelain", "--", "dlrun", "conf"))
    return f"commit {git('rev-parse', '--short', 'HEAD') or 'unknown'}{' with changes' if changed else ''}"


def write(section: Section, path: Path = RESULTS) -> None:
    """Put a section into the results, in the place of the one that was there; the others stay."""
    before = path.read_text() if path.exists() else INTRODUCTION
    head, *sections = re.split(r"^(?=## )", before, flags=re.MULTILINE)
    parts = {part.split(":", 1)[0].removeprefix("## "): part.rstrip() + "\n" for part in sections}
    parts[section.name] = section.markdown()
    path.write_text("\n".join([head.rstrip() + "\n", *parts.values()]))
    keep(section, path.with_name("results"))


def keep(section: Section, folder: Path) -> None:
    """Keep those of a section's figures that answer a goal, where `kept` finds them; one left out before stays."""
    found = {f.goal: {"value": f.value, "number": f.number} for f in section.figures if f.goal}
    if found:
        file = folder / f"{section.name}.json"
        taken = {"when": f"{section.when:%Y-%m-%d %H:%M}", "commit": commit(), "machine": machine()}
        before = json.loads(file.read_text()) if file.exists() else {}
        folder.mkdir(exist_ok=True)
        file.write_text(json.dumps(before | {goal: told | taken for goal, told in found.items()}, indent=1) + "\n")


def kept(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what was measured of each goal: value, number, section, when, commit, machine; the newest of several."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("*.json")):
        for goal, told in json.loads(file.read_text()).items():
            if told["when"] >= found.get(goal, {"when": ""})["when"]:
                found[goal] = told | {"section": file.stem}
    return found
