"""Whole processes of one trivial run: wall and CPU seconds, peak memory.

With next to nothing to train, imports, set-up and files remain. dlrun is the command, without its uploader (`startup`
and `sweeps` include it); the others are scripts of one step.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import commands, report, step
from benchmarks.alternation import alternate, ratios, spread
from benchmarks.frameworks import PEERS, QUIET, installed, peers_python
from benchmarks.report import ROOT, Figure, Section

ONE_STEP = ("train", "trainer.steps=1", "trainer.figures=false", "tracking.wait=0")
OFF = "tracking.enabled=false"
CONVNET = ("+experiment=mnist", "trainer.steps=20", "trainer.figures=false", "evaluation.train_samples=1000", OFF)

BARE, TRACKED = "a bare loop with `torch.optim`", "`dlrun train`"

# A process inherits the peak memory of the one that starts it, so it is started from a small one.
_SMALL = """
import json, os, sys, time
began = time.perf_counter()
pid = os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
_, status, used = os.wait4(pid, 0)
wall = time.perf_counter() - began
print(json.dumps([wall, used.ru_utime + used.ru_stime, used.ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)]))
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Whole(NamedTuple):
    """Wall seconds, CPU seconds with those of its children, and peak memory in MiB of a process."""

    wall: float
    cpu: float
    megabytes: float


def whole(command: list[str], here: Path) -> Whole:
    """Measure a command, without the processes that it leaves running.

    Raises `RuntimeError` with its output if it fails.
    """
    kept = {name: value for name, value in os.environ.items() if name not in commands.SHELL}
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", _SMALL, *command],
        cwd=here,
        env=kept | QUIET | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return Whole(*json.loads(done.stdout.splitlines()[-1]))


def script(program: str) -> list[str]:
    """The command line of a peer's program, on next to nothing."""
    python = str(peers_python()) if program in PEERS or program.startswith("hydra") else sys.executable
    return [python, "-m", "benchmarks.worker", program]


def commands_of(versions: Mapping[str, str], *, quick: bool) -> dict[str, list[str]]:
    """Command lines by name."""
    found = {"`import torch`": [sys.executable, "-c", "import torch"], BARE: script("bare")}
    if not quick:
        found |= {TRACKED: commands.dlrun(*ONE_STEP)}
    found |= {f"`dlrun train {OFF}`": commands.dlrun(*ONE_STEP, OFF)}
    found |= {PEERS[name]: script(name) for name in versions}
    if "lightning" in versions:
        found["Hydra, Lightning and its MLflow logger"] = script("hydra_lightning")
    return found


def seeds(here: Path, *, runs: int = 100, beside: int = 8) -> list[Figure]:
    """The wall seconds of a seed of the convnet in one process of many, and as a command (MNIST only)."""
    if step.images()[2] != "MNIST":
        return []
    options = ("hydra/launcher=batched", "hydra.launcher.slots=1", "sweep.fresh=true", "sweep.figures=false")
    many = commands.dlrun("train", "-m", *CONVNET, f"seed=range({runs})", *options)
    each = [whole(commands.dlrun("train", *CONVNET, f"seed={seed}"), here).wall for seed in range(beside)]
    one = whole(many, here).wall / runs
    what = f"a run of {runs} seeds of the MNIST convnet (20 steps) in one process / as a command of its own: wall"
    value = f"{one / median(each):.2f} ({one:.2f} s; {spread(each, '.2f', 's')})"
    return [Figure(what, value, goal="seeds_convnet", number=one / median(each))]


def measure(*, quick: bool = False, repeats: int | None = None) -> Section:
    load, versions = report.load(), installed()
    rounds = repeats or (1 if quick else 5)
    with commands.workplace() as here:
        if not quick:
            commands.train(here, "trainer.fast=true")  # makes the store
        programs = {name: partial(whole, command, here) for name, command in commands_of(versions, quick=quick).items()}
        found = figures(alternate(programs, rounds, warm_up=0 if quick else 1))
        found += [] if quick else seeds(here)
    notes = (
        "The training process and what it waits for; the uploader of `dlrun train` is not among them (tracking.wait=0)."
        " The store exists. One step of a small network; dlrun's with its data set, evaluation, checkpoints and files."
    )
    return Section("processes", "whole processes of one step", "python -m benchmarks.processes", found, notes, load)


def figures(taken: dict[str, list[Whole]]) -> list[Figure]:
    """One row per program."""
    found = []
    bare = [w.cpu for w in taken[BARE]]
    for name, rounds in taken.items():
        cpu = [w.cpu for w in rounds]
        each = (
            f"CPU {spread(cpu, '.2f', 's')}; {median(w.wall for w in rounds):.2f} s; "
            f"{max(w.megabytes for w in rounds):.0f} MiB; CPU / bare {median(ratios(cpu, bare)):.2f}"
        )
        goal = "process" if name == TRACKED else ""
        found.append(Figure(name, each, goal=goal, number=median(cpu) if goal else None))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, untracked, as a check that it works")
    parser.add_argument("--repeats", type=int, help="rounds (5)")
    options = parser.parse_args()
    print(measure(quick=options.quick, repeats=options.repeats).markdown())


if __name__ == "__main__":
    main()
